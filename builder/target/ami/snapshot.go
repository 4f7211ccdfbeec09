// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/holdfast/holdfast/builder/show"
	blocks "github.com/holdfast/holdfast/images/ebs"
)

// snapshotTimeout is after how many minutes without a block EBS cancels a
// pending snapshot by itself: what a killed run that nobody repeats leaves
// behind costs nothing after that.
const snapshotTimeout = 60

// maxAttempts bounds how often a run starts a snapshot anew because the one it
// meant to go on with is dead.
const maxAttempts = 3

// snapshot brings the disk into a complete snapshot.
func (s *session) snapshot(ctx context.Context) error {
	if s.st.Complete {
		s.rep.Say("snapshot %s in %s was complete already", s.st.Snapshot, s.o.Region)
		s.made(s.o.Region, "", s.st.Snapshot)
		return nil
	}
	for range maxAttempts {
		alive, err := s.start(ctx)
		if err != nil {
			return err
		}
		if alive {
			return s.fill(ctx)
		}
		if err := s.again(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("start a snapshot in %s: %d in a row were gone or failed before a block was sent", s.o.Region, maxAttempts)
}

// again forgets a dead snapshot and draws another attempt.
func (s *session) again(ctx context.Context) error {
	if err := s.clear(ctx, s.st); err != nil {
		return err
	}
	s.st = newState(s.upload, s.st.Parent, s.o.all())
	return s.store.save(s.st)
}

// start makes the snapshot of this attempt, or finds it: the same client token
// gives the same snapshot. alive is false when it can take no blocks any more.
func (s *session) start(ctx context.Context) (alive bool, err error) {
	known, earlier := s.st.Snapshot, !s.st.Started.IsZero()
	if !earlier {
		s.st.Started = time.Now().UTC()
	}
	// The attempt is on disk before the request: a run killed before the
	// answer finds the snapshot by its token.
	if err := s.store.save(s.st); err != nil {
		return false, err
	}
	in := &ebs.StartSnapshotInput{
		VolumeSize:  aws.Int64(s.gib()),
		ClientToken: aws.String(s.st.token("snapshot")),
		Timeout:     aws.Int32(snapshotTimeout),
		Tags:        ebsTags(s.tags(s.o.SnapshotTags)),
	}
	if s.o.Description != "" {
		in.Description = &s.o.Description
	}
	if s.parent != nil {
		in.ParentSnapshotId = &s.parent.id // encryption is then the parent's
	} else if s.o.Encrypt {
		in.Encrypted = aws.Bool(true)
		if s.o.KMSKey != "" {
			in.KmsKeyArn = &s.o.KMSKey
		}
	}
	client := s.cl.ebs()
	var out *ebs.StartSnapshotOutput
	_, err = s.caller(s.o.Region).do(ctx, call{what: "start a snapshot", permission: "ebs:StartSnapshot and ec2:CreateTags", creates: true}, func(ctx context.Context) error {
		var err error
		out, err = client.StartSnapshot(ctx, in)
		return err
	})
	var conflict *ebstypes.ConflictException
	if errors.As(err, &conflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	id := aws.ToString(out.SnapshotId)
	if !snapshotRE.MatchString(id) {
		return false, fmt.Errorf("start a snapshot in %s: the answer has no id but %q", s.o.Region, id)
	}
	s.made(s.o.Region, "", id)
	if id != known {
		s.st.Sent, s.st.Started = nil, time.Now().UTC()
	}
	s.st.Snapshot = id
	if err := s.store.save(s.st); err != nil {
		return false, err
	}
	if s.public(out) {
		return false, fmt.Errorf("snapshot_groups and ami_groups: the account encrypts new snapshots in %s by default, and an encrypted image cannot be public: publish from an account or region without that setting", s.o.Region)
	}
	if !earlier {
		s.rep.Say("snapshot %s started in %s, %d GiB%s", id, s.o.Region, s.gib(), s.onTop())
		return true, nil
	}
	s.resumed = true
	return s.resume(ctx)
}

func (s *session) public(out *ebs.StartSnapshotOutput) bool {
	return s.o.public() && (aws.ToString(out.KmsKeyArn) != "" || out.SseType == ebstypes.SSETypeSseKms)
}

// resume tells whether a snapshot of an earlier run can be gone on with.
func (s *session) resume(ctx context.Context) (alive bool, err error) {
	got, err := s.describe(ctx, s.o.Region, s.st.Snapshot)
	switch {
	case judge(err) == missing && time.Since(s.st.Started) > s.p.Missing:
		return false, nil
	case err != nil && judge(err) != missing:
		return false, err
	case err == nil && got.State == ec2types.SnapshotStateError:
		return false, nil
	case err == nil && got.State == ec2types.SnapshotStateCompleted:
		s.rep.Say("snapshot %s was complete already", s.st.Snapshot)
	default:
		s.rep.Say("going on with snapshot %s of an earlier run%s", s.st.Snapshot, s.onTop())
	}
	return true, nil
}

func (s *session) onTop() string {
	if s.parent == nil {
		return ""
	}
	return " on top of " + s.parent.id
}

// gib is the snapshot's volume size: the disk's, so that a machine may have
// any larger disk, and not less than the parent's, as EBS wants.
func (s *session) gib() int64 {
	if s.parent != nil {
		return max(s.disk.GiB(), s.parent.gib)
	}
	return s.disk.GiB()
}

// fill sends the blocks, seals the snapshot and waits until it is complete.
func (s *session) fill(ctx context.Context) error {
	put, err := s.put(ctx)
	if err != nil {
		return err
	}
	if err := s.complete(ctx, put); err != nil {
		return err
	}
	s.st.Complete, s.st.Sent = true, nil
	if err := s.store.save(s.st); err != nil {
		return err
	}
	var base *blocks.List
	if s.parent != nil {
		base = s.parent.list
	}
	holds, err := base.Apply(s.gib(), put)
	if err == nil {
		err = s.store.keep(s.st.Snapshot, holds)
	}
	if err != nil {
		s.rep.Warn("the list of blocks of %s was not kept, an upload on top of it will read it back: %v", s.st.Snapshot, err)
	}
	s.rep.Say("snapshot %s is complete: %d blocks, %s sent", s.st.Snapshot, len(put), show.Bytes(int64(len(put))*blocks.BlockSize))
	return nil
}

func (s *session) complete(ctx context.Context, put []blocks.Entry) error {
	count, sum := blocks.Checksum(put)
	client := s.cl.ebs()
	lost, err := s.caller(s.o.Region).do(ctx, call{
		what: "complete snapshot " + s.st.Snapshot, permission: "ebs:CompleteSnapshot", missingUntil: s.st.Started.Add(s.p.Missing),
	}, func(ctx context.Context) error {
		_, err := client.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{
			SnapshotId:                &s.st.Snapshot,
			ChangedBlocksCount:        &count,
			Checksum:                  &sum,
			ChecksumAlgorithm:         ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
			ChecksumAggregationMethod: ebstypes.ChecksumAggregationMethodChecksumAggregationLinear,
		})
		return err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// A lost answer, here or in an earlier run, may hide that the snapshot was
	// sealed; then another request fails, and only the snapshot can tell.
	if err != nil && (lost || s.resumed) && s.awaitSnapshot(ctx, s.o.Region, s.st.Snapshot, s.p.Missing) == nil {
		return nil
	}
	if err != nil {
		return err
	}
	return s.awaitSnapshot(ctx, s.o.Region, s.st.Snapshot, s.p.Snapshot)
}

func (s *session) awaitSnapshot(ctx context.Context, region, id string, within time.Duration) error {
	started := time.Now()
	return s.caller(region).poll(ctx, "snapshot "+id+" to be complete", within, func(ctx context.Context) (bool, string, error) {
		got, err := s.describe(ctx, region, id)
		if judge(err) == missing && time.Since(started) < s.p.Missing {
			return false, "not known", nil
		}
		if err != nil {
			return false, "", err
		}
		switch got.State {
		case ec2types.SnapshotStateCompleted:
			return true, "", nil
		case ec2types.SnapshotStateError:
			return false, "", fmt.Errorf("snapshot %s in %s failed: %s", id, region, or(aws.ToString(got.StateMessage), "EBS gives no reason; run again"))
		}
		return false, string(got.State) + " " + aws.ToString(got.Progress), nil
	})
}

// describe is one snapshot; the verdict on the error is missing when there is
// none of that id.
func (s *session) describe(ctx context.Context, region, id string) (*ec2types.Snapshot, error) {
	var out *ec2.DescribeSnapshotsOutput
	_, err := s.ec2(ctx, region, call{what: "look at snapshot " + id, permission: "ec2:DescribeSnapshots"}, func(ctx context.Context, c *ec2.Client) error {
		var err error
		out, err = c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(out.Snapshots) != 1 {
		return nil, &ebstypes.ResourceNotFoundException{Message: aws.String("snapshot " + id + " does not exist")}
	}
	return &out.Snapshots[0], nil
}

func ebsTags(tags map[string]string) []ebstypes.Tag {
	var list []ebstypes.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, ebstypes.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return list
}
