// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/compose/stack"
)

// scripted is a runner whose checks do what the test says.
func scripted(t *testing.T, check func(ctx context.Context, c string, p stack.Probe) outcome) (*Runner, *atomic.Int32) {
	t.Helper()
	var published atomic.Int32
	r := New(Config{Publish: func() { published.Add(1) }})
	r.check = func(ctx context.Context, tg Target, p stack.Probe, _ string) outcome {
		return check(ctx, tg.Container, p)
	}
	t.Cleanup(r.Close)
	return r, &published
}

func target(id string, probes ...stack.Probe) Target {
	return Target{Container: id, Service: "s", Started: time.Now(), Probes: probes}
}

func TestRunnerFollowsOneContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		r, published := scripted(t, func(context.Context, string, stack.Probe) outcome {
			if bad.Load() {
				return outcome{failed: "connection refused"}
			}
			return outcome{}
		})
		p := stack.Probe{Kind: "tcp", Port: 1, Interval: 10 * time.Second, Retries: 3}
		r.Set([]Target{target("a", p)})
		if got := r.Results()["a"]; got.Health != Starting {
			t.Fatalf("%+v", got)
		}
		<-time.After(time.Second)
		synctest.Wait()
		if got := r.Results()["a"]; got.Health != Healthy || published.Load() != 1 || got.Checks[0].At.IsZero() {
			t.Fatalf("%+v, published %d times", got, published.Load())
		}
		bad.Store(true)
		<-time.After(25 * time.Second) // two failures
		synctest.Wait()
		if got := r.Results()["a"]; got.Health != Healthy || got.Checks[0].Failures != 2 {
			t.Fatalf("%+v", got)
		}
		<-time.After(10 * time.Second)
		synctest.Wait()
		got := r.Results()["a"]
		if got.Health != Unhealthy || got.Output != "tcp :1: connection refused" || published.Load() != 2 {
			t.Fatalf("%+v, published %d times", got, published.Load())
		}
		// The same container, started again: the judgement starts over.
		bad.Store(false)
		r.Set([]Target{target("a", p)})
		if got := r.Results()["a"]; got.Health != Starting || got.Checks[0].Failures != 0 {
			t.Fatalf("%+v", got)
		}
	})
}

func TestGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under atomic.Int32
		r, published := scripted(t, func(ctx context.Context, _ string, _ stack.Probe) outcome {
			under.Add(1)
			defer under.Add(-1)
			<-ctx.Done() // hangs until it is told to end
			return outcome{failed: "late"}
		})
		r.Set([]Target{target("a", stack.Probe{Kind: "tcp"}), target("b", stack.Probe{Kind: "tcp"}), target("without")})
		<-time.After(time.Second)
		synctest.Wait()
		if under.Load() != 2 || len(r.Results()) != 2 {
			t.Fatalf("%d checks, %v", under.Load(), r.Results())
		}
		r.Set(nil)
		synctest.Wait()
		if under.Load() != 0 || len(r.Results()) != 0 || published.Load() != 0 {
			t.Errorf("%d checks, %v, published %d times", under.Load(), r.Results(), published.Load())
		}
		// synctest fails the test if a goroutine is left when it ends.
	})
}

// TestSpread: containers that start together are not checked together, and
// never more at once than the runner allows.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[time.Duration]int{}
		var now, most int
		began := time.Now()
		r, _ := scripted(t, func(context.Context, string, stack.Probe) outcome {
			mu.Lock()
			seen[time.Since(began)]++
			now++
			most = max(most, now)
			mu.Unlock()
			<-time.After(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return outcome{}
		})
		var targets []Target
		for i := range 50 {
			targets = append(targets, target(fmt.Sprint(i), stack.Probe{Kind: "exec"}))
		}
		r.Set(targets)
		<-time.After(20 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for when, n := range seen {
			if n > maxExec {
				t.Errorf("%d checks began at %v", n, when)
			}
		}
		if most != maxExec {
			t.Errorf("%d checks at once, want %d", most, maxExec)
		}
		for id, res := range r.Results() {
			if res.Health != Healthy {
				t.Errorf("%s: %+v", id, res)
			}
		}
	})
}

// TestEagerUntilGood: what becomes good is seen soon, whatever the interval.
func TestEagerUntilGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		checks := 0
		r, _ := scripted(t, func(context.Context, string, stack.Probe) outcome {
			checks++
			if time.Since(began) < 3*time.Second {
				return outcome{failed: "not yet"}
			}
			return outcome{}
		})
		r.Set([]Target{target("a", stack.Probe{Kind: "http", Interval: time.Minute})})
		<-time.After(8 * time.Second)
		synctest.Wait()
		if got := r.Results()["a"]; got.Health != Healthy || got.Since.Sub(began) > 6*time.Second {
			t.Errorf("%+v", got)
		}
		if checks > 6 {
			t.Errorf("%d checks", checks)
		}
	})
}

func TestUptime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, published := scripted(t, nil)
		r.Set([]Target{target("a", stack.Probe{Kind: "uptime", For: 10 * time.Second})})
		synctest.Wait()
		if got := r.Results()["a"]; got.Health != Starting || got.Output == "" {
			t.Fatalf("%+v", got)
		}
		<-time.After(10 * time.Second)
		synctest.Wait()
		if got := r.Results()["a"]; got.Health != Healthy || published.Load() != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestMerged: the worst of a container's probes counts.
func TestMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scripted(t, func(_ context.Context, _ string, p stack.Probe) outcome {
			if p.Port == 2 {
				return outcome{failed: "refused"}
			}
			return outcome{}
		})
		r.Set([]Target{target("a", stack.Probe{Kind: "tcp", Port: 1}, stack.Probe{Kind: "tcp", Port: 2, Interval: time.Second, Retries: 1},
			stack.Probe{Kind: "uptime", For: time.Hour})})
		<-time.After(900 * time.Millisecond)
		synctest.Wait()
		if got := r.Results()["a"]; got.Health != Starting {
			t.Errorf("%+v", got)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if got := r.Results()["a"]; got.Health != Unhealthy || got.Output != "tcp :2: refused" {
			t.Errorf("%+v", got)
		}
	})
}
