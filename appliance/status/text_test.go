// SPDX-License-Identifier: Apache-2.0

package status

import (
	"strings"
	"testing"
	"unicode"
)

func TestAnnouncement(t *testing.T) {
	r := Report{Stack: "starting"}
	if got := r.Announcement(); got != "this box: no network address starting" {
		t.Error(got)
	}
	r = Report{Hostname: "box1", Release: Release{Name: "demo", Version: "1.0.0"}, Stack: "healthy",
		Addresses: []Address{{Address: "10.0.0.5"}, {Address: "2001:db8::5"}}, SSH: SSH{Enabled: true, HostKey: "SHA256:abc"}}
	if got := r.Announcement(); got != "box1 (demo 1.0.0): 10.0.0.5 2001:db8::5 healthy" {
		t.Error(got)
	}
	if got := r.Access(); got != "admin access: ssh root@10.0.0.5, host key SHA256:abc" {
		t.Error(got)
	}
	r.SSH.Enabled = false
	if got := r.Access(); got != "" {
		t.Error(got)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("plain: ä €\t\x1b[2J\r\n\u009b\x7f\u2028\xff")
	f.Fuzz(func(t *testing.T, text string) {
		if got := Printable(text); strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func TestFeedUpdateIf(t *testing.T) {
	f := NewFeed(Report{})
	_, changed := f.Get()
	f.UpdateIf(func(*Report) bool { return false })
	select {
	case <-changed:
		t.Error("woken for nothing")
	default:
	}
	f.UpdateIf(func(r *Report) bool { r.Stack = "held"; return true })
	<-changed
}
