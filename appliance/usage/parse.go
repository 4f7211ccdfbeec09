// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"fmt"
	"math"
)

// number reads a decimal number at the start of b, after blanks, and returns
// what follows it. A number that does not fit is the largest that does.
func number(b []byte) (n int64, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " \t")
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		d := int64(b[i] - '0')
		if n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64
		} else {
			n = n*10 + d
		}
	}
	return n, b[i:], i > 0
}

// single is a file of one number. "max" and the kernel's largest values, which
// are what version 1 says for no limit, are 0 with unlimited.
func single(b []byte) (n int64, unlimited, ok bool) {
	b = bytes.TrimSpace(b)
	if bytes.Equal(b, []byte("max")) || bytes.Equal(b, []byte("-1")) {
		return 0, true, true
	}
	n, rest, ok := number(b)
	if !ok || len(rest) != 0 {
		return 0, false, false
	}
	// Version 1 counts pages: no limit is the largest whole page.
	if n >= math.MaxInt64-(64<<10) {
		return 0, true, true
	}
	return n, false, true
}

// keyed finds "key NUMBER" at the start of a line, or "key: NUMBER".
func keyed(b []byte, key string) (int64, bool) {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if len(line) <= len(key) || string(line[:len(key)]) != key {
			continue
		}
		switch line[len(key)] {
		case ' ', '\t', ':':
			n, _, ok := number(line[len(key)+1:])
			return n, ok
		}
	}
	return 0, false
}

// quotaCores reads cpu.max, "QUOTA PERIOD": cores, 0 without a limit.
func quotaCores(b []byte) (float64, bool) {
	b = bytes.TrimSpace(b)
	if bytes.HasPrefix(b, []byte("max")) {
		return 0, true
	}
	q, rest, ok := number(b)
	if !ok {
		return 0, false
	}
	p, rest, ok := number(rest)
	if !ok || p == 0 || len(rest) != 0 {
		return 0, false
	}
	return float64(q) / float64(p), true
}

// transfer is what went to and from disks: bytes, and requests.
type transfer struct{ read, written, reads, writes int64 }

// ioStat sums version 2's io.stat, lines as "8:0 rbytes=4096 wbytes=0 rios=1
// wios=0 dbytes=0 dios=0", over the devices that count.
func ioStat(b []byte, counts func(device []byte) bool) (t transfer) {
	for line := range bytes.Lines(b) {
		device, rest, ok := bytes.Cut(line, []byte(" "))
		if !ok || !counts(device) {
			continue
		}
		for _, f := range []struct {
			key string
			to  *int64
		}{{"rbytes=", &t.read}, {"wbytes=", &t.written}, {"rios=", &t.reads}, {"wios=", &t.writes}} {
			n, _ := assigned(rest, f.key)
			*f.to = add(*f.to, n)
		}
	}
	return t
}

// ioBytes sums a file of version 1's blkio controller, lines as "8:0 Read 4096".
func ioBytes(b []byte, counts func(device []byte) bool) (read, written int64) {
	for line := range bytes.Lines(b) {
		device, rest, ok := bytes.Cut(line, []byte(" "))
		if !ok || !counts(device) {
			continue
		}
		if n, ok := assigned(rest, "Read "); ok {
			read = add(read, n)
		}
		if n, ok := assigned(rest, "Write "); ok {
			written = add(written, n)
		}
	}
	return read, written
}

func assigned(line []byte, key string) (int64, bool) {
	i := bytes.Index(line, []byte(key))
	if i < 0 {
		return 0, false
	}
	n, _, ok := number(line[i+len(key):])
	return n, ok
}

// add keeps a sum within its type.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// averages reads a file of the kernel's pressure stall information: the shares
// of time, 0 to 1, of the last 10 seconds. "full" is 0 where the file has none.
func averages(b []byte) (some, full float64, ok bool) {
	for line := range bytes.Lines(b) {
		rest, isSome := bytes.CutPrefix(line, []byte("some avg10="))
		if !isSome {
			var isFull bool
			if rest, isFull = bytes.CutPrefix(line, []byte("full avg10=")); !isFull {
				continue
			}
		}
		share, good := percent(rest)
		if !good {
			return 0, 0, false
		}
		if isSome {
			some, ok = share, true
		} else {
			full = share
		}
	}
	return some, full, ok
}

// percent reads "12.34 " as 0.1234.
func percent(b []byte) (float64, bool) {
	whole, rest, ok := number(b)
	if !ok || whole > 100 || len(rest) < 3 || rest[0] != '.' {
		return 0, false
	}
	part, after, ok := number(rest[1:3])
	if !ok || len(after) != 0 || len(rest) > 3 && rest[3] != ' ' && rest[3] != '\n' {
		return 0, false
	}
	return min(1, (float64(whole)+float64(part)/100)/100), true
}

// stat reads /proc/stat: seconds in which processors were busy, at the
// kernel's 100 ticks a second, and how many processors there are. Busy is
// user, nice, system, irq and softirq; idle, waiting for disks and what the
// hypervisor took are not.
func stat(b []byte) (busy float64, cpus int, err error) {
	seen := false
	for line := range bytes.Lines(b) {
		if !bytes.HasPrefix(line, []byte("cpu")) {
			break
		}
		if len(line) < 4 || line[3] != ' ' {
			cpus++
			continue
		}
		rest := line[3:]
		var ticks int64
		for i := range 7 {
			var n int64
			var ok bool
			if n, rest, ok = number(rest); !ok {
				return 0, 0, fmt.Errorf("line %.80q", line)
			}
			if i != 3 && i != 4 {
				ticks = add(ticks, n)
			}
		}
		busy, seen = float64(ticks)/100, true
	}
	if !seen {
		return 0, 0, fmt.Errorf("no line of all processors")
	}
	return busy, cpus, nil
}
