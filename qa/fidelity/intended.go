// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"regexp"
	"slices"
	"strings"
)

// Intent is a difference we mean.
type Intent struct {
	// Name and Reason are for the documentation.
	Name, Reason string
	// Is says whether a difference is this one; it looks at both values.
	Is func(d Difference) bool
}

const (
	labelVersion = "com.docker.compose.version"
	labelHash    = "com.docker.compose.config-hash"
)

// Intended is all that may differ. The suite fails on an entry that no case
// needs.
var Intended = []Intent{
	{"restart policy", "the supervisor restarts, never the engine: two that both restart would fight over order and backoff",
		func(d Difference) bool {
			return d.Path == "HostConfig.RestartPolicy.Name" && d.Ours == "no" ||
				d.Path == "HostConfig.RestartPolicy.MaximumRetryCount" && text(d.Ours) == "0"
		}},
	{"no-new-privileges", "added to every container that does not decide it itself: a set-user-id program must not lift what the stack dropped",
		func(d Difference) bool {
			if d.Path != "HostConfig.SecurityOpt" {
				return false
			}
			theirs, _ := d.Theirs.([]any)
			want := append(slices.Clone(theirs), "no-new-privileges:true")
			slices.SortFunc(want, func(a, b any) int { return strings.Compare(text(a), text(b)) })
			return text(d.Ours) == text(want)
		}},
	{"log caps", "logs are capped where the stack names no cap: a log must never fill the disk",
		func(d Difference) bool {
			return d.Path == "HostConfig.LogConfig.Config.max-size" && d.Ours == "10m" && d.Theirs == nil ||
				d.Path == "HostConfig.LogConfig.Config.max-file" && d.Ours == "3" && d.Theirs == nil
		}},
	{"version label", "it names the program that made the container", func(d Difference) bool {
		return label(d) == labelVersion && d.Ours == "holdfast" && d.Theirs == "2.40.3"
	}},
	{"configuration hash", "ours covers the bytes of the stack's files too; docker compose reads it and says the service has changed",
		func(d Difference) bool {
			ours, _ := d.Ours.(string)
			theirs, _ := d.Theirs.(string)
			return label(d) == labelHash && hex64.MatchString(ours) && hex64.MatchString(theirs)
		}},
	{"generation label", "one-shot services run once per generation; the label counts them", func(d Difference) bool {
		return label(d) == "io.holdfast.generation" && d.Theirs == nil
	}},
	{"pinned image", "a box runs NAME@DIGEST and no tag: what a tag means could change", func(d Difference) bool {
		ours, _ := d.Ours.(string)
		theirs, _ := d.Theirs.(string)
		return d.Path == "Config.Image" && strings.Contains(ours, "@sha256:") && strings.Contains(theirs, ":")
	}},
	{"files with an owner, a mode or content", "docker compose ignores uid, gid and mode, and copies content into the container's layer, which a read-only container refuses; ours are read-only mounts of a file that is as the stack says",
		func(d Difference) bool {
			return written.MatchString(d.Path) && (strings.Contains(text(d.Ours), "/files/config.") || strings.Contains(text(d.Ours), "/files/secret."))
		}},
	{"protocol of an exposed port", "docker compose leaves out the protocol that an expose without one has, tcp", func(d Difference) bool {
		port, ok := strings.CutPrefix(d.Path, "Config.ExposedPorts.")
		return ok && (strings.HasSuffix(port, "/tcp") && d.Theirs == nil || !strings.Contains(port, "/") && d.Ours == nil)
	}},
	{"what docker compose drops", "deploy.resources.reservations.cpus on one node, :ro of volumes_from, ipam.options: each is honoured here", func(d Difference) bool {
		switch {
		case d.Path == "HostConfig.CpuShares":
			return text(d.Theirs) == "0"
		case d.Path == "HostConfig.VolumesFrom":
			return strings.Contains(text(d.Ours), ":ro") && text(d.Theirs) == strings.ReplaceAll(text(d.Ours), ":ro", "")
		case strings.HasPrefix(d.Path, "Mounts."):
			return strings.HasSuffix(d.Path, ".RW") && d.Ours == false && d.Theirs == true || strings.HasSuffix(d.Path, ".Mode") && d.Ours == "ro"
		}
		return d.Path == "IPAM.Options" && d.Theirs == nil
	}},
	{"default of create_host_path", "true where a long mount does not say, as the specification has it; docker compose takes false. The file is there either way: the bake has checked it", func(d Difference) bool {
		return strings.HasPrefix(d.Path, "HostConfig.Mounts./") && strings.HasSuffix(d.Path, ".BindOptions.CreateMountpoint") && d.Ours == true && d.Theirs == nil
	}},
	{"budget", "a box gives each service its share of the machine: limits, protection by class and its slice; without a budget these are the stack's own", func(d Difference) bool {
		return slices.Contains(budgeted, d.Path)
	}},
}

// budgeted is what a budget may change.
var budgeted = []string{"HostConfig.CgroupParent", "HostConfig.CpuShares", "HostConfig.Memory", "HostConfig.MemoryReservation",
	"HostConfig.MemorySwap", "HostConfig.NanoCpus", "HostConfig.OomScoreAdj", "HostConfig.PidsLimit"}

// written are mounts of the files that the supervisor makes.
var written = regexp.MustCompile(`^(HostConfig\.)?Mounts\./`)

// label is the name of the label that differs, "" where none does.
func label(d Difference) string {
	for _, prefix := range []string{"Config.Labels.", "Labels."} {
		if l, ok := strings.CutPrefix(d.Path, prefix); ok {
			return l
		}
	}
	return ""
}
