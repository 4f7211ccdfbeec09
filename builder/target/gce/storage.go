// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/storage/v1"

	"github.com/holdfast/holdfast/builder/target"
)

// hashKey marks an object as ours: it holds the archive with that sha256.
const hashKey = "holdfast-sha256"

// find looks for the archive in the bucket: what an upload that was killed
// after its end left there is taken up, and a stranger's object is never
// replaced or deleted. nil means that there is none.
func (j *job) find(ctx context.Context) (*storage.Object, error) {
	what := fmt.Sprintf("look for gs://%s/%s", j.Bucket, j.Object)
	o, err := j.look(ctx)
	if err != nil {
		return nil, j.storageError(what, err)
	}
	if o != nil && !j.ours(o) {
		return nil, fmt.Errorf("gs://%s/%s exists and is not this archive: set gcs_object_name to another name, or delete it", j.Bucket, j.Object)
	}
	return o, nil
}

// look is nil for no object and for no bucket: the first request of the upload
// tells them apart.
func (j *job) look(ctx context.Context) (*storage.Object, error) {
	var o *storage.Object
	err := j.l.try(ctx, func(ctx context.Context) (err error) {
		o, err = j.c.storage.Objects.Get(j.Bucket, j.Object).Context(ctx).Do()
		return err
	})
	if status(err) == http.StatusNotFound {
		return nil, nil
	}
	return o, err
}

func (j *job) ours(o *storage.Object) bool {
	return o.Metadata[hashKey] == j.rec.SHA256 && int64(o.Size) == j.rec.Bytes
}

// upload sends the archive in chunks. A chunk that fails is sent again, so a
// broken connection costs one chunk; the bytes are checked at both ends.
func (j *job) upload(ctx context.Context) (*storage.Object, error) {
	what := fmt.Sprintf("upload to gs://%s/%s", j.Bucket, j.Object)
	f, err := os.Open(j.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	j.sent = true
	meter := target.NewMeter("upload", j.p.Say)
	meter.Progress(0, j.rec.Bytes)
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	o, err := j.c.storage.Objects.Insert(j.Bucket, &storage.Object{
		Name:        j.Object,
		ContentType: "application/gzip",
		Metadata:    map[string]string{hashKey: j.rec.SHA256},
	}).IfGenerationMatch(0).
		Media(io.TeeReader(io.LimitReader(f, j.rec.Bytes), sum), googleapi.ContentType("application/gzip"),
			googleapi.ChunkSize(j.l.chunk), googleapi.ChunkRetryDeadline(j.l.piece+j.l.retry), googleapi.ChunkTransferTimeout(j.l.piece),
			googleapi.EnableAutoChecksum()).
		ProgressUpdater(func(done, _ int64) { meter.Progress(done, j.rec.Bytes) }).
		WithRetry(nil, transient).Context(ctx).Do()
	if err != nil {
		if j.sent = !refused(err); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, j.storageError(what, err)
	}
	j.c.sessions.ended()
	want := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	if int64(o.Size) != j.rec.Bytes || o.Crc32c != want {
		return o, fmt.Errorf("%s: %d bytes with checksum %s arrived, %d with %s were sent: try again", what, o.Size, o.Crc32c, j.rec.Bytes, want)
	}
	return o, nil
}

// removeObject deletes the very object that was uploaded, and an upload that
// has not come to its end.
func (j *job) removeObject(ctx context.Context) error {
	if address := j.c.sessions.open(); address != "" {
		// Best effort: Google forgets it after a week in any case.
		if r, err := http.NewRequestWithContext(ctx, http.MethodDelete, address, nil); err == nil {
			if res, err := j.c.http.Do(r); err == nil {
				res.Body.Close()
			}
		}
	}
	if !j.sent {
		return nil
	}
	what := fmt.Sprintf("delete gs://%s/%s", j.Bucket, j.Object)
	o, err := j.object, error(nil)
	if o == nil {
		// The upload failed late: did it come to its end all the same?
		if o, err = j.look(ctx); err == nil && (o == nil || !j.ours(o)) {
			return nil
		}
	}
	if err == nil {
		err = j.l.try(ctx, func(ctx context.Context) error {
			return j.c.storage.Objects.Delete(j.Bucket, j.Object).IfGenerationMatch(o.Generation).Context(ctx).Do()
		})
	}
	if s := status(err); err == nil || s == http.StatusNotFound || s == http.StatusPreconditionFailed {
		return nil // it is gone, or another's by now
	}
	return fmt.Errorf("%w; delete it with `gcloud storage rm gs://%s/%s`", j.storageError(what, err), j.Bucket, j.Object)
}
