// SPDX-License-Identifier: Apache-2.0

package uefivars

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/klauspost/compress/zlib"

	"github.com/holdfast/holdfast/images/gpt"
)

const (
	awsMagic  = "AMZNUEFI"
	awsHeader = 16 // magic, checksum, version
	// MaxAWS is the most characters RegisterImage takes as UefiData.
	MaxAWS = 64000
	// maxStore bounds what a store unpacks to in bytes: EC2's has 512 KiB.
	maxStore = 1 << 20
	maxVars  = 4096
	// maxName bounds a variable's name in bytes.
	maxName = 1024
)

// awsDictionary is the preset dictionary of version 0. It is data that both
// sides must have; where it comes from is in LICENSE.python-uefivars.
//
//go:embed aws-dictionary-v0.bin
var awsDictionary []byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AWS is the key set as UefiData of an AMI: base64 of a variable store that
// holds the key set's variables and nothing else.
func (k KeySet) AWS() (string, error) {
	vars, err := k.Variables()
	if err != nil {
		return "", err
	}
	return EncodeAWS(vars)
}

// EncodeAWS makes UefiData of variables, in their order.
//
// Layout, little-endian: "AMZNUEFI", CRC-32C of all that follows, u32 version 0,
// then a zlib stream with the preset dictionary: u64 count, and for each
// variable name (UTF-8) and data, both led by their u64 length, vendor, u32
// attributes, and when these say time-based authentication, EFI_TIME and a
// digest led by its u64 length. Source: python-uefivars, to which Amazon's
// page "Create a binary blob containing a pre-filled variable store" points.
func EncodeAWS(vars []Variable) (string, error) {
	if len(vars) > maxVars {
		return "", fmt.Errorf("%d variables are more than %d", len(vars), maxVars)
	}
	le := binary.LittleEndian
	raw := le.AppendUint64(nil, uint64(len(vars)))
	blob := func(b []byte) { raw = append(le.AppendUint64(raw, uint64(len(b))), b...) }
	for _, v := range vars {
		if v.Name == "" || len(v.Name) > maxName || !utf8.ValidString(v.Name) {
			return "", fmt.Errorf("%.40q is not a variable's name", v.Name)
		}
		vendor := onDisk(v.Vendor)
		blob([]byte(v.Name))
		blob(v.Data)
		raw = append(raw, vendor[:]...)
		raw = le.AppendUint32(raw, v.Attributes)
		if v.Attributes&attrTimeAuth != 0 {
			raw = append(raw, v.Time[:]...)
			digest := v.Digest
			if len(digest) == 0 {
				digest = make([]byte, 32) // what Amazon's own tool writes for none
			}
			blob(digest)
		}
		if len(raw) > maxStore {
			return "", fmt.Errorf("the variables take more than %d bytes", maxStore)
		}
	}
	out := bytes.NewBufferString(awsMagic)
	out.Write(make([]byte, awsHeader-len(awsMagic)))
	z, err := zlib.NewWriterLevelDict(out, zlib.BestCompression, awsDictionary)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(raw); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	b := out.Bytes()
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	text := base64.StdEncoding.EncodeToString(b)
	if len(text) > MaxAWS {
		return "", fmt.Errorf("the key set makes %d characters of UefiData, EC2 takes %d: leave dbx out, or use a shorter one", len(text), MaxAWS)
	}
	return text, nil
}

// DecodeAWS reads UefiData.
func DecodeAWS(text string) ([]Variable, error) {
	if len(text) > MaxAWS {
		return nil, fmt.Errorf("UefiData of %d characters is longer than %d", len(text), MaxAWS)
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("UefiData is not base64: %w", err)
	}
	le := binary.LittleEndian
	if len(b) < awsHeader || string(b[:8]) != awsMagic {
		return nil, errors.New("UefiData does not start with " + awsMagic)
	}
	if le.Uint32(b[8:]) != crc32.Checksum(b[12:], castagnoli) {
		return nil, errors.New("UefiData has a wrong checksum: it was cut or changed")
	}
	if v := le.Uint32(b[12:]); v != 0 {
		return nil, fmt.Errorf("UefiData is of version %d, only 0 is known", v)
	}
	z, err := zlib.NewReaderDict(bytes.NewReader(b[awsHeader:]), awsDictionary)
	if err != nil {
		return nil, fmt.Errorf("UefiData does not unpack: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(z, maxStore+1))
	if err != nil {
		return nil, fmt.Errorf("UefiData does not unpack: %w", err)
	}
	if len(raw) > maxStore {
		return nil, fmt.Errorf("UefiData unpacks to more than %d bytes", maxStore)
	}
	return parseStore(raw)
}

// cursor takes fields off the front of a store; after the first that is cut
// off, all are empty.
type cursor struct {
	b   []byte
	cut bool
}

func (c *cursor) take(n uint64) []byte {
	if c.cut || n > uint64(len(c.b)) {
		c.cut = true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func parseStore(raw []byte) ([]Variable, error) {
	c := &cursor{b: raw}
	n := c.u64()
	if n > maxVars {
		return nil, fmt.Errorf("UefiData says it has %d variables", n)
	}
	var vars []Variable
	for i := range n {
		v := Variable{Name: string(c.take(c.u64())), Data: slices.Clone(c.take(c.u64()))}
		if b := c.take(16); b != nil {
			v.Vendor = onDisk(gpt.GUID(b))
		}
		v.Attributes = c.u32()
		if v.Attributes&attrTimeAuth != 0 {
			copy(v.Time[:], c.take(timeSize))
			if d := c.take(c.u64()); !bytes.Equal(d, make([]byte, len(d))) {
				v.Digest = slices.Clone(d)
			}
		}
		if c.cut || v.Name == "" || len(v.Name) > maxName || !utf8.ValidString(v.Name) {
			return nil, fmt.Errorf("variable %d of UefiData is cut off or has no proper name", i)
		}
		vars = append(vars, v)
	}
	if len(c.b) > 0 {
		return nil, fmt.Errorf("UefiData has %d bytes after its last variable", len(c.b))
	}
	return vars, nil
}
