// SPDX-License-Identifier: Apache-2.0

package look

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/esp"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/layout"
)

func TestRefusesWhatNobodyBaked(t *testing.T) {
	const size = 256 << 20
	root := [16]byte{1}
	table, err := layout.Plan(layout.Spec{ESPSize: 80 << 20, SlotSize: 1 << 20, FactorySize: 1 << 20, RootSize: 1, RootUUID: root})
	if err != nil {
		t.Fatal(err)
	}
	disk := func(files ...esp.File) *bytes.Reader {
		b := make(sparse, size)
		head, tail, err := gpt.Encode(gpt.Table{DiskGUID: table.DiskGUID, Parts: table.Parts}, size)
		if err != nil {
			t.Fatal(err)
		}
		copy(b, head)
		copy(b[size-len(tail):], tail)
		p, _ := table.Part(layout.ESPLabel)
		if err := esp.Write(b[p.Offset:p.Offset+p.Size], p.Size, files, 1, fixed); err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(b)
	}
	for _, c := range []struct {
		name, want string
		r          *bytes.Reader
	}{
		{"zeros", "GPT", bytes.NewReader(make([]byte, size))},
		{"no kernel", "no kernel image", disk()},
		{"no program", "Linux/a.efi", disk(esp.File{Path: "EFI/Linux/a.efi", Data: []byte("no program")})},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Disk(context.Background(), c.r, size, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	if _, err := File(context.Background(), "disk.iso", nil); err == nil {
		t.Error("a file that is not there was looked at")
	}
}
