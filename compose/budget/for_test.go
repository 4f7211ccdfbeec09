// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/stack"
)

// wanted holds services to what they get, one line each.
func wanted(t *testing.T, b *Budget, want map[string]Service) {
	t.Helper()
	for name, w := range want {
		got, ok := b.Service(name)
		if w.Name = name; !ok || got != w {
			t.Errorf("got  %+v\nwant %+v", got, w)
		}
	}
}

// TestDefaults on a machine with 15 GiB less 2.5 for services.
func TestDefaults(t *testing.T) {
	st := written(t, `
services:
  silent: {image: a}
  only-limit: {image: a, mem_limit: 1g, cpus: 0.5, pids_limit: -1}
  shed-limit: {image: a, mem_limit: 1g, x-holdfast: {class: best-effort}}
  reserves: {image: a, mem_reservation: 512m, x-holdfast: {class: critical}}
  deploys:
    image: a
    oom_score_adj: -900
    cpu_shares: 512
    deploy:
      resources:
        limits: {cpus: "64", memory: 2g, pids: 10}
        reservations: {cpus: "0.25", memory: 1g}
  quota: {image: a, mem_limit: 100m, cpu_quota: 50000, oom_score_adj: 900}
`)
	b, err := For(st, "", Node{CPUs: 4, Memory: 16 * gib})
	if err != nil {
		t.Fatal(err)
	}
	free := 16*gib - b.Reserve.Memory
	if b.Size != "S" || b.Reserve != (Amount{CPU: 0.1, Memory: 1*gib + 4*gib/5 + 8*gib/10}) {
		t.Errorf("size %s, reserve %+v", b.Size, b.Reserve)
	}
	// Without a limit: the guarantee and half of what the ratio leaves, but
	// not what the others are guaranteed.
	others := func(own int64) int64 { return free - (16*mib + gib + 16*mib + 512*mib + gib + 100*mib) + own }
	wanted(t, b, map[string]Service{
		"silent": {Class: stack.Normal, Guaranteed: Amount{CPU: 0.02, Memory: 16 * mib}, Limit: Amount{Memory: others(16 * mib), Pids: 1024},
			OOMScoreAdj: 500, CPUWeight: 21, IOWeight: 100, MemoryLow: 16 * mib},
		"only-limit": {Class: stack.Normal, Guaranteed: Amount{CPU: 0.02, Memory: gib}, Limit: Amount{CPU: 0.5, Memory: gib, Pids: 1024},
			OOMScoreAdj: 438, CPUWeight: 21, IOWeight: 100, MemoryLow: gib, FromLimit: true},
		"shed-limit": {Class: stack.BestEffort, Guaranteed: Amount{CPU: 0.01, Memory: 16 * mib}, Limit: Amount{Memory: gib, Pids: 1024},
			OOMScoreAdj: 1000, CPUWeight: 11, IOWeight: 25, Sheddable: true},
		"reserves": {Class: stack.Critical, Guaranteed: Amount{CPU: 0.05, Memory: 512 * mib}, Limit: Amount{Memory: others(512 * mib), Pids: 1024},
			OOMScoreAdj: -400, CPUWeight: 53, IOWeight: 400, MemoryMin: 512 * mib},
		"deploys": {Class: stack.Normal, Guaranteed: Amount{CPU: 0.25, Memory: gib}, Limit: Amount{CPU: 4, Memory: 2 * gib, Pids: 10},
			OOMScoreAdj: -400, CPUWeight: 50, IOWeight: 100, MemoryLow: gib},
		"quota": {Class: stack.Normal, Guaranteed: Amount{CPU: 0.02, Memory: 100 * mib}, Limit: Amount{CPU: 0.5, Memory: 100 * mib, Pids: 1024},
			OOMScoreAdj: 900, CPUWeight: 21, IOWeight: 100, MemoryLow: 100 * mib, FromLimit: true},
	})
}

const sized = `
x-holdfast:
  sizes:
    XS: {cpus: 2, memory: 4GiB, data: 10GiB}
    M:
      cpus: 48
      memory: 192GiB
      data: 500GiB
      services: {db: {memory: 64GiB, reserved-memory: 32GiB, cpus: 16, reserved-cpus: 8, pids: 4096}}
      volumes: {store: 400GiB, cache: 20GiB}
services:
  db: {image: a, mem_limit: 1g, mem_reservation: 512m, volumes: ["store:/s", "cache:/c", "logs:/l"]}
  migrate: {image: a, mem_limit: 256m, restart: "no"}
volumes:
  store: {x-holdfast: {disk: 5GiB}}
  cache: {x-holdfast: {disk: 1GiB}}
  logs:
`

func TestSizesOfAStack(t *testing.T) {
	st := written(t, sized)
	for _, c := range []struct {
		size string
		node Node
		want string // the size, "no" and a reason, or an error
	}{
		{"", Node{48, 192 * gib, 500 * gib, 0}, "M"},
		{"", Node{48, 180 * gib, 500 * gib, 0}, "M"},  // less what the kernel keeps
		{"", Node{48, 179 * gib, 500 * gib, 0}, "XS"}, // no M any more
		{"", Node{47, 192 * gib, 500 * gib, 0}, "XS"}, // too few cpus
		{"", Node{48, 192 * gib, 499 * gib, 0}, "XS"}, // too little data
		{"", Node{48, 192 * gib, 0, 0}, "M"},          // data not known
		{"", Node{1, 2 * gib, 0, 0}, "XS"},            // smaller than all: the sums decide
		{"", Node{1, gib, 0, 0}, "no: the services are guaranteed 768 MiB of memory and the system keeps 424 MiB, the machine has 1 GiB: 168 MiB are missing"},
		{"M", Node{48, 64 * gib, 500 * gib, 0}, "M"}, // named: no machine is asked for
		{"M", Node{8, 64 * gib, 500 * gib, 0}, "no: the services are guaranteed 8.02 cpus and the system keeps 0.10, the machine has 8.00: 0.12 are missing"},
		{"XS", Node{2, 4 * gib, 6 * gib, 0}, "no: the volumes may grow to 6 GiB, those without a budget need 256 MiB, and 307 MiB are kept free, the volume for data has 6 GiB: 563 MiB are missing"},
		{"S", Node{48, 192 * gib, 500 * gib, 0}, `the stack demo is not made for size "S": use one of XS, M`},
		{"XS", Node{0, gib, 0, 0}, "a machine of 0 cpus and 1073741824 bytes of memory cannot run a stack"},
	} {
		b, err := For(st, c.size, c.node)
		var got string
		var no *Refused
		switch {
		case errors.As(err, &no):
			got = "no: " + strings.Join(no.Reasons, "; ")
		case err != nil:
			got = err.Error()
		default:
			got = b.Size
		}
		if got != c.want {
			t.Errorf("size %q on %+v:\ngot  %s\nwant %s", c.size, c.node, got, c.want)
		}
	}
	b, err := For(st, "M", Node{CPUs: 48, Memory: 192 * gib, Data: 500 * gib})
	if err != nil {
		t.Fatal(err)
	}
	wanted(t, b, map[string]Service{
		"db": {Class: stack.Normal, Guaranteed: Amount{CPU: 8, Memory: 32 * gib}, Limit: Amount{CPU: 16, Memory: 64 * gib, Pids: 4096},
			OOMScoreAdj: 334, CPUWeight: 4769, IOWeight: 100, MemoryLow: 32 * gib},
		"migrate": {Class: stack.Normal, Guaranteed: Amount{CPU: 0.02, Memory: 256 * mib}, Limit: Amount{Memory: 256 * mib, Pids: 1024},
			OOMScoreAdj: 499, CPUWeight: 12, IOWeight: 100, MemoryLow: 256 * mib, OneShot: true, FromLimit: true},
	})
	if want := []Volume{{"cache", 20 * gib}, {"logs", 0}, {"store", 400 * gib}}; !slices.Equal(b.Volumes, want) {
		t.Errorf("volumes %v, want %v", b.Volumes, want)
	}
	golden(t, "sized-m.txt", b.Table())
	small, err := For(st, "", Node{CPUs: 2, Memory: 4 * gib, Data: 10 * gib})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "resized.txt", strings.Join(Diff(small, b), "\n")+"\n")
	sizes, err := Prove(st)
	want := []Size{{"XS", 2, 4096, 20, 13, "m6a.large", "n2-standard-2"}, {"M", 48, 192 << 10, 100, 642, "m6a.12xlarge", "n2-standard-48"}}
	if err != nil || !slices.Equal(sizes, want) {
		t.Errorf("made for %+v %v, want %+v", sizes, err, want)
	}
	if got := NodeSize(st, Node{CPUs: 2, Memory: 2 * gib}); got != "" {
		t.Errorf("a machine below all sizes is %q", got)
	}
}

// TestABootChangesNothing: what containers are made with does not follow the
// few pages that a kernel finds more or less.
func TestABootChangesNothing(t *testing.T) {
	st := written(t, "services:\n  a: {image: a}\n  b: {image: a, mem_limit: 2g, mem_reservation: 100m}\n  c: {image: a, mem_limit: 333m}\n")
	one, err := For(st, "XS", Node{CPUs: 2, Memory: 2014640 * kib})
	if err != nil {
		t.Fatal(err)
	}
	two, err := For(st, "XS", Node{CPUs: 2, Memory: 2014832 * kib})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(one.Services, two.Services) {
		t.Errorf("%+v\nafter a boot\n%+v", one.Services, two.Services)
	}
}

// TestASmallerSizeMayDo: a machine of a size that does not fit takes the next
// smaller one.
func TestASmallerSizeMayDo(t *testing.T) {
	st := written(t, "x-holdfast: {sizes: {XS: {}, S: {cpus: 4, memory: 8GiB, services: {web: {reserved-memory: 8GiB, memory: 8GiB}}}}}\nservices: {web: {image: a, mem_limit: 1g}}\n")
	if b, err := For(st, "", Node{CPUs: 4, Memory: 8 * gib}); err != nil || b.Size != "XS" {
		t.Errorf("size %+v, %v", b, err)
	}
}

// TestProve refuses a release for what it cannot run on.
func TestProve(t *testing.T) {
	for _, c := range []struct{ name, stack, want string }{
		{"own size", "x-holdfast: {sizes: {XS: {cpus: 2, memory: 2GiB}, S: {}}}\nservices: {web: {image: a, mem_limit: 2g}}\n", "no XS"},
		{"none of ours", "services: {web: {image: a, mem_limit: 200g}}\n", "no XL"},
		{"from S", "services: {web: {image: a, mem_limit: 8g}}\n", "S M L XL"},
		{"contradiction", "x-holdfast:\n  sizes: {XS: {services: {web: {memory: 32MiB}}}}\nservices:\n  web: {image: a, mem_reservation: 64m, mem_limit: 128m}\n",
			"compose.yaml:5: services.web: at size XS it is guaranteed 64 MiB of memory, which is more than its limit of 32 MiB; " +
				"write a smaller reservation or a larger limit, here or below x-holdfast.sizes.XS"},
	} {
		sizes, err := Prove(written(t, c.stack))
		var got []string
		for _, s := range sizes {
			got = append(got, s.Name)
		}
		var no *Refused
		if errors.As(err, &no) {
			got = []string{"no", no.Budget.Size}
		} else if err != nil {
			got = []string{err.Error()}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: got %s, want %s", c.name, s, c.want)
		}
	}
}

// TestOneShotsTakeTurns counts what can run at one time.
func TestOneShotsTakeTurns(t *testing.T) {
	b, err := For(written(t, `
services:
  first: {image: a, mem_limit: 100m}
  second: {image: a, mem_limit: 100m}
  db: {image: a, mem_limit: 50m, depends_on: {first: {condition: service_completed_successfully}, second: {condition: service_completed_successfully}}}
  web: {image: a, mem_limit: 100m, depends_on: [db]}
`), "", Node{CPUs: 2, Memory: 2 * gib})
	if err != nil {
		t.Fatal(err)
	}
	// Both side by side need 200 MiB, db and web after them 150.
	if got := b.guaranteed().Memory; got != 200*mib {
		t.Errorf("guaranteed %s at one time, want 200 MiB", SizeText(got))
	}
}

func TestSizeIn(t *testing.T) {
	own := []Size{{Name: "S", CPUs: 4}, {Name: "M", CPUs: 8}}
	for _, c := range []struct {
		in   []Size
		name string
		want string
	}{
		{own, "", "S"}, {own, "M", "M"}, {nil, "", "XS"}, {nil, "L", "L"},
		{own, "XS", `the budgets of this release do not fit size "XS": use one of S, M`},
		{nil, "XXL", `size "XXL" is not known: use one of XS, S, M, L, XL`},
	} {
		s, err := SizeIn(c.in, c.name)
		got := s.Name
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q of %d: got %s, want %s", c.name, len(c.in), got, c.want)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1: "1 B", 1023: "1023 B", 1536: "1.50 KiB", mib: "1 MiB", 1000 * mib: "1000 MiB",
		gib: "1 GiB", 12 * gib: "12 GiB", 12*gib + mib: "12.0 GiB", gib + gib/2: "1.50 GiB", 2 * tib: "2 TiB", -mib: "-1 MiB", 999*gib + 900*mib: "1000 GiB"} {
		if got := SizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
