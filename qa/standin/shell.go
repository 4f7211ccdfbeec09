// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// shell is as much of sh as a health check's line needs: `sh -c LINE`, where
// LINE is commands joined by || or &&, of plain and quoted words.
func shell(args []string) int {
	if len(args) != 2 || args[0] != "-c" {
		return fail(exitUsage, errors.New("want -c and a line"))
	}
	words, err := split(args[1])
	if err != nil {
		return fail(exitUsage, err)
	}
	code := 0
	for len(words) > 0 {
		n := 0
		for n < len(words) && words[n] != "||" && words[n] != "&&" {
			n++
		}
		code = simple(words[:n])
		if n == len(words) || words[n] == "||" && code == 0 || words[n] == "&&" && code != 0 {
			return code
		}
		words = words[n+1:]
	}
	return code
}

// simple runs one command.
func simple(words []string) int {
	if len(words) == 0 {
		return fail(exitUsage, errors.New("a command is missing"))
	}
	switch name := path.Base(words[0]); name {
	case "exit":
		if len(words) != 2 {
			return fail(exitUsage, errors.New("exit takes a code"))
		}
		n, err := strconv.ParseUint(words[1], 10, 8)
		if err != nil {
			return fail(exitUsage, err)
		}
		return int(n)
	case "true":
		return 0
	case "false":
		return 1
	case "echo":
		fmt.Println(strings.Join(words[1:], " "))
		return 0
	case "wget", "curl", "redis-cli", "liveness.sh", "standin":
		return run(name, words[1:])
	default:
		return fail(127, fmt.Errorf("%s: not found", words[0]))
	}
}

// split cuts a line into words as a shell does, without expansions.
func split(line string) (out []string, err error) {
	var word strings.Builder
	in, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				out = append(out, word.String())
				word.Reset()
				in = false
			}
		case strings.ContainsRune("$`\\<>();", r):
			return nil, fmt.Errorf("%q is more of a shell than a stand-in has", r)
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%q is not closed", quote)
	}
	if in {
		out = append(out, word.String())
	}
	return out, nil
}
