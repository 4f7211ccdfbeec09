// SPDX-License-Identifier: Apache-2.0

package uefivars

import (
	"crypto/x509"
	"encoding/binary"
	"fmt"

	"github.com/holdfast/holdfast/images/gpt"
)

const (
	listHeader = 28 // EFI_SIGNATURE_LIST: type, three lengths
	ownerSize  = 16
	// maxLists bounds the lists of one file: the published dbx has two.
	maxLists = 1024
)

// List is an EFI signature list: entries of one type and one size.
type List struct {
	Type gpt.GUID
	// Header is empty for every type that UEFI defines.
	Header  []byte
	Entries []Entry
}

// Entry is one EFI_SIGNATURE_DATA.
type Entry struct {
	Owner gpt.GUID
	// Data is a certificate in DER, or a hash, as the list's type says.
	Data []byte
}

// certificateLists holds each certificate in a list of its own, because a list
// has entries of one size.
func certificateLists(certs ...*x509.Certificate) []List {
	lists := make([]List, len(certs))
	for i, c := range certs {
		lists[i] = List{Type: TypeX509, Entries: []Entry{{Owner, c.Raw}}}
	}
	return lists
}

// EncodeLists is the content of an .esl file. All entries of a list must have
// the same length, as those that ParseLists reads do.
func EncodeLists(lists []List) []byte {
	var b []byte
	le := binary.LittleEndian
	for _, l := range lists {
		size := 0
		if len(l.Entries) > 0 {
			size = ownerSize + len(l.Entries[0].Data)
		}
		kind := onDisk(l.Type)
		b = append(b, kind[:]...)
		b = le.AppendUint32(b, uint32(listHeader+len(l.Header)+size*len(l.Entries)))
		b = le.AppendUint32(b, uint32(len(l.Header)))
		b = le.AppendUint32(b, uint32(size))
		b = append(b, l.Header...)
		for _, e := range l.Entries {
			owner := onDisk(e.Owner)
			b = append(append(b, owner[:]...), e.Data...)
		}
	}
	return b
}

// ParseLists reads an .esl file. It refuses lengths that do not add up, and a
// certificate that is none.
func ParseLists(b []byte) ([]List, error) {
	var lists []List
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < listHeader {
			return nil, fmt.Errorf("signature list %d is cut off after %d bytes", len(lists), len(b))
		}
		if len(lists) == maxLists {
			return nil, fmt.Errorf("more than %d signature lists", maxLists)
		}
		total, head, size := int64(le.Uint32(b[16:])), int64(le.Uint32(b[20:])), int64(le.Uint32(b[24:]))
		body := total - listHeader - head
		if total > int64(len(b)) || body <= 0 || size <= ownerSize || body%size != 0 {
			return nil, fmt.Errorf("signature list %d has lengths that do not add up (%d, %d, %d of %d bytes)", len(lists), total, head, size, len(b))
		}
		l := List{Type: onDisk(gpt.GUID(b[:16])), Header: b[listHeader:][:head:head]}
		for at := listHeader + head; at < total; at += size {
			e := Entry{Owner: onDisk(gpt.GUID(b[at:][:16])), Data: b[at+ownerSize : at+size : at+size]}
			if err := checkEntry(l.Type, e.Data); err != nil {
				return nil, fmt.Errorf("signature list %d: %w", len(lists), err)
			}
			l.Entries = append(l.Entries, e)
		}
		lists = append(lists, l)
		b = b[total:]
	}
	return lists, nil
}

func checkEntry(kind gpt.GUID, data []byte) error {
	switch kind {
	case TypeX509:
		if _, err := x509.ParseCertificate(data); err != nil {
			return fmt.Errorf("a certificate does not parse: %w", err)
		}
	case TypeSHA256:
		if len(data) != 32 {
			return fmt.Errorf("a SHA-256 has %d bytes", len(data))
		}
	}
	return nil
}
