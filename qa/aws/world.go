// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// BlockSize of EBS in bytes, and how many a GiB has.
const (
	BlockSize    = 512 << 10
	blocksPerGiB = 2048
)

// world is what moto does not keep.
type world struct {
	snaps  map[string]*Snapshot
	images map[string]*Image
	// made are answers by client token, with the request that got them.
	made map[string]made
}

type made struct {
	asked string
	answer
}

func newWorld() world {
	return world{map[string]*Snapshot{}, map[string]*Image{}, map[string]made{}}
}

// Snapshot is one that StartSnapshot or CopyImage made.
type Snapshot struct {
	ID, Region, Parent string
	GiB                int64
	// Put has the checksum of each block that was put, as base64.
	Put map[int64]string
	// Complete is true after CompleteSnapshot; Sealed once DescribeSnapshots
	// says so too.
	Complete, Sealed bool
	polls            int
	// Encrypted and Key are as it was started.
	Encrypted bool
	Key       string
}

// sealAfter is how often a complete snapshot or a new image is still pending
// when it is looked at.
const sealAfter = 2

// Snapshots are those that were started and not deleted, by id.
func (p *Proxy) Snapshots() map[string]*Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.world.snaps)
}

// again is the answer to a request whose client token was used before.
func (p *Proxy) again(token, asked string) (answer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.world.made[token]
	if ok && m.asked != asked {
		return ebsError(409, "ConflictException", "", "the client token was used with other parameters"), true
	}
	return m.answer, ok
}

func (p *Proxy) handleEBS(q *Request, r *http.Request, body []byte) answer {
	if q.Op == "StartSnapshot" {
		return p.startSnapshot(q, r, body)
	}
	p.mu.Lock()
	s := p.world.snaps[q.Text("SnapshotId")]
	p.mu.Unlock()
	if s == nil || s.Region != q.Region {
		return q.fail(NotThere)
	}
	switch q.Op {
	case "PutSnapshotBlock":
		return p.putBlock(q, s, r, body)
	case "CompleteSnapshot":
		return p.completeSnapshot(q, s, r)
	}
	if !s.Sealed {
		return ebsError(400, "ValidationException", "INVALID_SNAPSHOT_ID", "The snapshot is not complete.")
	}
	switch q.Op {
	case "ListSnapshotBlocks":
		return p.listBlocks(q, s)
	case "GetSnapshotBlock":
		return p.getBlock(q, s, r)
	}
	return ebsError(400, "ValidationException", "INVALID_PARAMETER_VALUE", q.Op+" is not made here")
}

func (p *Proxy) startSnapshot(q *Request, r *http.Request, body []byte) answer {
	token := q.Text("ClientToken")
	if token == "" {
		q.Bad = append(q.Bad, "no ClientToken: a retry would start another snapshot")
	}
	if a, ok := p.again(q.Region+token, string(body)); ok {
		return a
	}
	gib, _ := strconv.ParseInt(q.Text("VolumeSize"), 10, 64)
	s := &Snapshot{Region: q.Region, Parent: q.Text("ParentSnapshotId"), GiB: gib, Put: map[int64]string{},
		Encrypted: q.Text("Encrypted") == "true", Key: q.Text("KmsKeyArn")}
	if s.Parent != "" {
		p.mu.Lock()
		parent := p.world.snaps[s.Parent]
		p.mu.Unlock()
		switch {
		case parent == nil || parent.Region != q.Region || !parent.Sealed:
			return q.fail(NotThere)
		case q.Text("Encrypted") != "" || s.Key != "":
			return ebsError(400, "ValidationException", "INVALID_PARAMETER_VALUE", "Encrypted and ParentSnapshotId exclude each other")
		case gib < parent.GiB:
			return ebsError(400, "ValidationException", "INVALID_VOLUME_SIZE", "smaller than the parent")
		}
		s.Encrypted, s.Key = parent.Encrypted, parent.Key
	}
	a := p.forward(r, r.URL.Path, body)
	var out map[string]any
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != 200 {
		return a
	}
	s.ID = fmt.Sprint(out["SnapshotId"])
	out["BlockSize"] = BlockSize
	if s.Key != "" {
		out["KmsKeyArn"] = s.Key
	}
	if s.Parent != "" {
		out["ParentSnapshotId"] = s.Parent
	}
	b, err := json.Marshal(out)
	if err != nil {
		return answer{status: 500}
	}
	a = answer{201, a.header, b}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.world.snaps[s.ID] = s
	p.world.made[q.Region+token] = made{string(body), a}
	return a
}

func (p *Proxy) putBlock(q *Request, s *Snapshot, r *http.Request, body []byte) answer {
	index, _ := strconv.ParseInt(q.Text("BlockIndex"), 10, 64)
	sum := sha256.Sum256(body)
	text := base64.StdEncoding.EncodeToString(sum[:])
	bad := ""
	switch {
	case s.Complete:
		bad = "the snapshot is complete"
	case index >= s.GiB*blocksPerGiB:
		bad = fmt.Sprintf("block %d is beyond %d GiB", index, s.GiB)
	case len(body) != BlockSize || q.Text("DataLength") != strconv.Itoa(BlockSize):
		bad = fmt.Sprintf("block of %d bytes, said to be %s", len(body), q.Text("DataLength"))
	case q.Text("Checksum") != text:
		bad = "the checksum is not the block's"
	}
	if bad != "" {
		q.Bad = append(q.Bad, bad)
		return ebsError(400, "ValidationException", "INVALID_BLOCK", bad)
	}
	a := p.forward(r, r.URL.Path, body)
	if a.status == 201 {
		p.mu.Lock()
		s.Put[index] = text
		p.mu.Unlock()
	}
	return a
}

// completeSnapshot holds count and checksum against the blocks that came.
func (p *Proxy) completeSnapshot(q *Request, s *Snapshot, r *http.Request) answer {
	p.mu.Lock()
	h := sha256.New()
	for _, i := range slices.Sorted(maps.Keys(s.Put)) {
		sum, _ := base64.StdEncoding.DecodeString(s.Put[i])
		h.Write(sum)
	}
	count, done := len(s.Put), s.Complete
	p.mu.Unlock()
	want := base64.StdEncoding.EncodeToString(h.Sum(nil))
	bad := ""
	switch {
	case done:
		return ebsError(400, "ValidationException", "INVALID_SNAPSHOT_ID", "The snapshot is not pending.")
	case q.Text("ChangedBlocksCount") != strconv.Itoa(count):
		bad = fmt.Sprintf("ChangedBlocksCount is %s, %d were put", q.Text("ChangedBlocksCount"), count)
	case q.Text("Checksum") != want || q.Text("ChecksumAlgorithm") != "SHA256" || q.Text("ChecksumAggregationMethod") != "LINEAR":
		bad = "the checksum is not that of the blocks"
	}
	if bad != "" {
		q.Bad = append(q.Bad, bad)
		return ebsError(400, "ValidationException", "INVALID_PARAMETER_VALUE", bad)
	}
	a := p.forward(r, r.URL.Path, nil)
	if a.status == 202 {
		p.mu.Lock()
		s.Complete = true
		p.mu.Unlock()
		a.body = []byte(`{"Status":"pending"}`)
	}
	return a
}

// owner is the snapshot of a line of parents that a block was put to.
func (p *Proxy) owner(s *Snapshot, index int64) *Snapshot {
	for s != nil {
		if _, ok := s.Put[index]; ok {
			return s
		}
		s = p.world.snaps[s.Parent]
	}
	return nil
}

// listBlocks lists also what the parents hold, by pages of the least size.
func (p *Proxy) listBlocks(q *Request, s *Snapshot) answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[int64]bool{}
	for x := s; x != nil; x = p.world.snaps[x.Parent] {
		for i := range x.Put {
			all[i] = true
		}
	}
	from, _ := strconv.Atoi(strings.TrimPrefix(q.Text("NextToken"), "page"))
	indexes := slices.Sorted(maps.Keys(all))
	const page = 100
	out := map[string]any{"BlockSize": BlockSize, "VolumeSize": s.GiB}
	list := []any{}
	for _, i := range indexes[min(from, len(indexes)):min(from+page, len(indexes))] {
		list = append(list, map[string]any{"BlockIndex": i, "BlockToken": token(s.ID, i)})
	}
	out["Blocks"] = list
	if from+page < len(indexes) {
		out["NextToken"] = "page" + strconv.Itoa(from+page)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return answer{status: 500}
	}
	return answer{200, http.Header{"Content-Type": {"application/json"}}, b}
}

func token(id string, index int64) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d", id, index))
	return base64.StdEncoding.EncodeToString(h[:])
}

func (p *Proxy) getBlock(q *Request, s *Snapshot, r *http.Request) answer {
	index, _ := strconv.ParseInt(q.Text("BlockIndex"), 10, 64)
	p.mu.Lock()
	o := p.owner(s, index)
	sum := ""
	if o != nil {
		sum = o.Put[index]
	}
	p.mu.Unlock()
	if o == nil || q.Text("BlockToken") != token(s.ID, index) {
		return ebsError(400, "ValidationException", "INVALID_BLOCK_TOKEN", "no such block")
	}
	a := p.forward(r, fmt.Sprintf("/snapshots/%s/blocks/%d?%s", o.ID, index, r.URL.RawQuery), nil)
	if a.status == 200 {
		a.header = http.Header{"X-Amz-Checksum": {sum}, "X-Amz-Checksum-Algorithm": {"SHA256"}, "X-Amz-Data-Length": {strconv.Itoa(BlockSize)}}
	}
	return a
}
