// SPDX-License-Identifier: Apache-2.0

// Command standin is the one program in the engine tests' image: a service
// that does what its arguments say, and the health check of such a service.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "standin: want serve, once or check")
		os.Exit(2)
	}
	f := flag.NewFlagSet("standin", flag.ExitOnError)
	healthyAfter := f.Duration("healthy-after", 0, "serve: when /healthz begins to say 200")
	exitAfter := f.Duration("exit-after", 0, "serve and once: end after this time")
	code := f.Int("code", 0, "exit code of the end")
	url := f.String("url", "http://127.0.0.1:8080/healthz", "check: what must say 200")
	file := f.String("file", "", "once: append a line to this file")
	need := f.String("need", "", "serve and once: a file that must not be empty")
	f.Parse(os.Args[2:])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if *need != "" {
		b, err := os.ReadFile(*need)
		if err != nil || len(b) == 0 {
			fmt.Fprintln(os.Stderr, "standin:", *need, "is missing or empty", err)
			os.Exit(9)
		}
	}
	switch os.Args[1] {
	case "check":
		c := http.Client{Timeout: 5 * time.Second}
		r, err := c.Get(*url)
		if err != nil {
			fmt.Println("not healthy:", err)
			os.Exit(1)
		}
		r.Body.Close()
		if r.StatusCode != 200 {
			fmt.Println("not healthy:", r.Status)
			os.Exit(1)
		}
		return
	case "once":
		if *file != "" {
			o, err := os.OpenFile(*file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err == nil {
				_, err = fmt.Fprintln(o, "ran")
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "standin:", err)
				os.Exit(8)
			}
		}
	case "serve":
		fmt.Println("standin: serving")
		began := time.Now()
		http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
			if time.Since(began) < *healthyAfter {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		go func() {
			fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", nil))
			os.Exit(7)
		}()
		if *exitAfter == 0 {
			<-ctx.Done()
			return
		}
	}
	t := time.NewTimer(*exitAfter)
	select {
	case <-t.C:
		os.Exit(*code)
	case <-ctx.Done():
	}
}
