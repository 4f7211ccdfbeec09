// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func frame(stream byte, text string) string {
	head := make([]byte, 8)
	head[0] = stream
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return string(head) + text
}

const stamp = "2026-01-01T12:00:00.000000001Z "

func TestReadLog(t *testing.T) {
	long := strings.Repeat("x", maxLogLine+10)
	for _, c := range []struct {
		name, in string
		tty      bool
		want     []string
		err      string
	}{
		{"empty", "", false, nil, ""},
		{"two streams", frame(1, stamp+"one\n") + frame(2, stamp+"two\n"), false, []string{"stdout one", "stderr two"}, ""},
		{"a line over frames", frame(1, stamp+"on") + frame(2, stamp+"b\n") + frame(1, "e\n"), false, []string{"stderr b", "stdout one"}, ""},
		{"the engine's own cut", frame(1, stamp+"abc") + frame(1, stamp+"def\n"), false, []string{"stdout abcdef"}, ""},
		{"no last end", frame(1, stamp+"one"), false, []string{"stdout one"}, ""},
		{"empty lines", frame(1, stamp+"\n"+stamp+"\r\n"), false, []string{"stdout ", "stdout "}, ""},
		{"terminal", stamp + "one\r\n" + stamp + "two", true, []string{"stdout one", "stdout two"}, ""},
		{"too long", frame(1, stamp+long+"\n"), false, []string{"stdout " + long[:maxLogLine-len(stamp)], "stdout " + long[maxLogLine-len(stamp):]}, ""},
		{"cut short", frame(1, stamp+"one\n")[:20], false, nil, "does not answer"},
		{"the engine's error", frame(3, "disk on fire"), false, nil, "disk on fire"},
		{"no frame", "HTTP/1.1 200", false, nil, "unknown kind"},
	} {
		var got []string
		err := readLog(strings.NewReader(c.in), c.tty, func(l LogLine) error {
			if l.Time.Nanosecond() != 1 {
				t.Errorf("%s: time %v", c.name, l.Time)
			}
			got = append(got, l.Stream+" "+l.Text)
			return nil
		})
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
		if strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%s: got %d lines %.200q", c.name, len(got), got)
		}
	}
	stop := errors.New("enough")
	for _, in := range []string{frame(1, stamp+"a\n"+stamp+"b\n"), frame(1, stamp+"a")} {
		if err := readLog(strings.NewReader(in), false, func(LogLine) error { return stop }); !errors.Is(err, stop) || errors.Is(err, ErrUnreachable) {
			t.Errorf("the caller's error became %v", err)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte(frame(1, stamp+"one\n")+frame(2, "b")), false)
	f.Add([]byte(stamp+"one\r\n"), true)
	f.Fuzz(func(t *testing.T, in []byte, tty bool) {
		total := 0
		readLog(bytes.NewReader(in), tty, func(l LogLine) error {
			total += len(l.Text)
			if len(l.Text) > maxLogLine || strings.Contains(l.Text, "\n") || l.Stream != "stdout" && l.Stream != "stderr" {
				return fmt.Errorf("%+v", l)
			}
			_ = l.Time.Add(time.Second)
			return nil
		})
		if total > len(in) {
			t.Errorf("%d bytes of %d", total, len(in))
		}
	})
}
