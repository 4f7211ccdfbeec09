// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"

	"github.com/holdfast/holdfast/builder/target"
	blocks "github.com/holdfast/holdfast/images/ebs"
)

// saveEvery is how old the record of sent blocks may be: what was sent since is
// sent again after a kill, which does no harm.
const saveEvery = time.Second

// put sends all blocks that the snapshot lacks, and returns all it was sent,
// now and by earlier runs.
func (s *session) put(ctx context.Context) ([]blocks.Entry, error) {
	var base *blocks.List
	if s.parent != nil {
		base = s.parent.list
	}
	u := &upload{
		s: s, base: base, window: newWindow(time.Now()), saved: time.Now(),
		todo:  s.disk.Candidates(base),
		meter: target.NewMeter("upload to "+s.o.Region, s.rep.Say),
	}
	if err := u.run(ctx); err != nil {
		return nil, err
	}
	return u.put, nil
}

// upload is the sending of blocks.
type upload struct {
	s      *session
	base   *blocks.List
	window *window
	todo   []int32
	meter  *target.Meter

	mu    sync.Mutex
	next  int
	done  int
	put   []blocks.Entry
	saved time.Time
}

func (u *upload) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	client := u.s.cl.ebs()
	var wg sync.WaitGroup
	for range min(maxWorkers, len(u.todo)) {
		wg.Go(func() {
			if err := u.work(ctx, client); err != nil {
				stop(err) // the first one counts
			}
		})
	}
	wg.Wait()
	err := context.Cause(ctx)
	u.mu.Lock()
	defer u.mu.Unlock()
	if e := u.s.store.save(u.s.st); err == nil {
		err = e
	}
	return err
}

func (u *upload) work(ctx context.Context, client *ebs.Client) error {
	buf := make([]byte, blocks.BlockSize)
	for {
		index, sent, ok := u.take()
		if !ok || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := u.s.disk.Read(index, buf); err != nil {
			return err
		}
		sum := blocks.Digest(buf)
		changed := sum != u.base.Sum(index)
		if changed && !sent {
			if err := u.send(ctx, client, index, buf, sum); err != nil {
				return err
			}
		}
		if err := u.count(index, sum, changed); err != nil {
			return err
		}
	}
}

// take is the next block, and whether an earlier run sent it.
func (u *upload) take() (index int32, sent, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.next == len(u.todo) {
		return 0, false, false
	}
	u.next++
	index = u.todo[u.next-1]
	return index, u.s.st.has(index), true
}

func (u *upload) send(ctx context.Context, client *ebs.Client, index int32, data []byte, sum blocks.Sum) error {
	s := u.s
	_, err := s.caller(s.o.Region).do(ctx, call{
		what: fmt.Sprintf("put block %d of snapshot %s", index, s.st.Snapshot), permission: "ebs:PutSnapshotBlock",
		give: s.p.Block, missingUntil: s.st.Started.Add(s.p.Missing), window: u.window, tries: s.p.Tries,
	}, func(ctx context.Context) error {
		out, err := client.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{
			SnapshotId:        &s.st.Snapshot,
			BlockIndex:        &index,
			BlockData:         bytes.NewReader(data),
			DataLength:        aws.Int32(blocks.BlockSize),
			Checksum:          aws.String(sum.String()),
			ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
		})
		if err == nil && aws.ToString(out.Checksum) != "" && *out.Checksum != sum.String() {
			return fmt.Errorf("EBS took block %d with the checksum %s, it has %s", index, *out.Checksum, sum)
		}
		return err
	})
	return err
}

// count notes a block that is done, and now and then writes down which are.
func (u *upload) count(index int32, sum blocks.Sum, changed bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done++
	if changed {
		u.put = append(u.put, blocks.Entry{Index: index, Sum: sum})
		u.s.st.mark(index)
	}
	u.meter.Progress(int64(u.done)*blocks.BlockSize, int64(len(u.todo))*blocks.BlockSize)
	if time.Since(u.saved) < saveEvery {
		return nil
	}
	u.saved = time.Now()
	return u.s.store.save(u.s.st)
}
