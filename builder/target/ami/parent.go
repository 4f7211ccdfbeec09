// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/holdfast/holdfast/builder/target"
	blocks "github.com/holdfast/holdfast/images/ebs"
)

// parent is the snapshot that an upload goes on top of.
type parent struct {
	id   string
	gib  int64
	list *blocks.List
}

// findParent looks for what parent_snapshot_id means; nil is a full upload. st
// is the state of an earlier run, or nil: what "last" was then stays so, or
// the run could not be gone on with.
func (s *session) findParent(ctx context.Context, st *state) error {
	id := s.o.Parent
	switch {
	case id == "":
		return nil
	case id == Last && st != nil && st.Parent != "":
		id = st.Parent
	}
	var snap *ec2types.Snapshot
	var err error
	if id == Last {
		if snap, err = s.last(ctx); snap == nil {
			return err
		}
	} else if snap, err = s.describe(ctx, s.o.Region, id); judge(err) == missing {
		if s.o.Parent == Last {
			return nil
		}
		return fmt.Errorf("parent_snapshot_id: there is no snapshot %s in %s", id, s.o.Region)
	} else if err != nil {
		return err
	}
	id = aws.ToString(snap.SnapshotId)
	switch {
	case snap.State != ec2types.SnapshotStateCompleted:
		return fmt.Errorf("parent_snapshot_id: snapshot %s is %s: only one that is complete can be built upon", id, snap.State)
	case s.o.Encrypt != aws.ToBool(snap.Encrypted):
		return fmt.Errorf("encrypt_boot: is %v, and parent_snapshot_id %s has it %v: a snapshot is encrypted like its parent", s.o.Encrypt, id, !s.o.Encrypt)
	case s.o.KMSKey != "" && s.o.KMSKey != aws.ToString(snap.KmsKeyId):
		return fmt.Errorf("kms_key_id: parent_snapshot_id %s is encrypted with another key, and a snapshot has its parent's: leave one of them out", id)
	}
	s.parent = &parent{id: id, gib: int64(aws.ToInt32(snap.VolumeSize))}
	if s.parent.list = s.store.list(id); s.parent.list != nil && s.parent.list.GiB == s.parent.gib {
		return nil
	}
	s.parent.list, err = s.readBack(ctx, id, s.parent.gib)
	return err
}

// last is the newest complete snapshot of a release of this name, encrypted
// like the new one; nil when there is none.
func (s *session) last(ctx context.Context) (*ec2types.Snapshot, error) {
	all, err := s.snapshotsBy(ctx, s.o.Region, tagName, s.d.Manifest.Name)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(x ec2types.Snapshot) bool {
		return x.State != ec2types.SnapshotStateCompleted || aws.ToBool(x.Encrypted) != s.o.Encrypt ||
			s.o.KMSKey != "" && aws.ToString(x.KmsKeyId) != s.o.KMSKey || x.StartTime == nil
	})
	if len(all) == 0 {
		s.rep.Say("no snapshot of %s in %s to upload on top of: all of it goes up", s.d.Manifest.Name, s.o.Region)
		return nil, nil
	}
	newest := slices.MaxFunc(all, func(a, b ec2types.Snapshot) int { return a.StartTime.Compare(*b.StartTime) })
	return &newest, nil
}

// maxFound bounds what a search by tag may return, over all pages.
const maxFound = 10000

// snapshotsBy are the account's own snapshots with a tag.
func (s *session) snapshotsBy(ctx context.Context, region, tag, value string) ([]ec2types.Snapshot, error) {
	var all []ec2types.Snapshot
	in := &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: []ec2types.Filter{{Name: aws.String("tag:" + tag), Values: []string{value}}}}
	for {
		var out *ec2.DescribeSnapshotsOutput
		_, err := s.ec2(ctx, region, call{what: "look for snapshots", permission: "ec2:DescribeSnapshots"}, func(ctx context.Context, c *ec2.Client) error {
			var err error
			out, err = c.DescribeSnapshots(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, out.Snapshots...)
		if aws.ToString(out.NextToken) == "" || len(all) > maxFound {
			return all, nil
		}
		in.NextToken = out.NextToken
	}
}

// unknown stands in for the digest of a block that was not read.
var unknown = blocks.Sum{}

// readBack learns from EBS what a snapshot holds. Only blocks that the disk
// touches are read; of the others it is enough to know that they are there, to
// put zeros over them.
func (s *session) readBack(ctx context.Context, id string, gib int64) (*blocks.List, error) {
	tokens, err := s.listBlocks(ctx, id, gib)
	if err != nil {
		return nil, err
	}
	touched := s.disk.Touched()
	var entries []blocks.Entry
	var read []int32
	for i := range tokens {
		if _, ok := slices.BinarySearch(touched, i); ok {
			read = append(read, i)
		} else {
			entries = append(entries, blocks.Entry{Index: i, Sum: unknown})
		}
	}
	slices.Sort(read)
	s.rep.Say("reading back %d blocks of %s, which this machine has no list of", len(read), id)
	meter := target.NewMeter("read back "+id, s.rep.Say)
	w := newWindow(time.Now())
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := 0
	for range min(maxWorkers, len(read)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				if next == len(read) {
					mu.Unlock()
					return
				}
				i := read[next]
				next++
				mu.Unlock()
				sum, err := s.readBlock(ctx, w, id, i, tokens[i])
				if err != nil {
					stop(err)
					return
				}
				mu.Lock()
				entries = append(entries, blocks.Entry{Index: i, Sum: sum})
				meter.Progress(int64(len(entries))*blocks.BlockSize, int64(len(tokens))*blocks.BlockSize)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return blocks.NewList(gib, entries)
}

// listBlocks is which blocks a snapshot has, with the token to read each.
func (s *session) listBlocks(ctx context.Context, id string, gib int64) (map[int32]string, error) {
	client := s.cl.ebs()
	tokens := map[int32]string{}
	in := &ebs.ListSnapshotBlocksInput{SnapshotId: &id, MaxResults: aws.Int32(10000)}
	for {
		var out *ebs.ListSnapshotBlocksOutput
		_, err := s.caller(s.o.Region).do(ctx, call{what: "list the blocks of " + id, permission: "ebs:ListSnapshotBlocks"}, func(ctx context.Context) error {
			var err error
			out, err = client.ListSnapshotBlocks(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		if n := aws.ToInt32(out.BlockSize); n != blocks.BlockSize {
			return nil, fmt.Errorf("parent_snapshot_id: snapshot %s has blocks of %d bytes, only %d are known", id, n, blocks.BlockSize)
		}
		for _, b := range out.Blocks {
			i := aws.ToInt32(b.BlockIndex)
			if i < 0 || int64(i) >= gib*(blocks.GiB/blocks.BlockSize) {
				return nil, fmt.Errorf("parent_snapshot_id: snapshot %s lists block %d, beyond its %d GiB", id, i, gib)
			}
			tokens[i] = aws.ToString(b.BlockToken)
		}
		if aws.ToString(out.NextToken) == "" {
			return tokens, nil
		}
		if aws.ToString(out.NextToken) == aws.ToString(in.NextToken) {
			return nil, errors.New("list the blocks of " + id + ": EBS gives the same page again and again")
		}
		in.NextToken = out.NextToken
	}
}

func (s *session) readBlock(ctx context.Context, w *window, id string, index int32, token string) (blocks.Sum, error) {
	client := s.cl.ebs()
	var sum blocks.Sum
	_, err := s.caller(s.o.Region).do(ctx, call{
		what: fmt.Sprintf("read block %d of snapshot %s", index, id), permission: "ebs:GetSnapshotBlock",
		give: s.p.Block, window: w, tries: s.p.Tries,
	}, func(ctx context.Context) error {
		out, err := client.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: &index, BlockToken: &token})
		if err != nil {
			return err
		}
		defer out.BlockData.Close()
		b, err := io.ReadAll(io.LimitReader(out.BlockData, blocks.BlockSize+1))
		if err != nil {
			return err
		}
		if sum = blocks.Digest(b); len(b) != blocks.BlockSize || aws.ToString(out.Checksum) != sum.String() {
			return fmt.Errorf("%d bytes with the checksum %s, announced as %s", len(b), sum, aws.ToString(out.Checksum))
		}
		return nil
	})
	return sum, err
}
