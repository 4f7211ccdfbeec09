// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/holdfast/holdfast/appliance/config/cloud"
	"github.com/holdfast/holdfast/appliance/config/platform"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/images/esp"
)

const (
	// espFile is the file on the EFI system partition; FAT knows no case.
	espFile = "EFI/holdfast/config.yaml"
	// credential is the name of the SMBIOS system credential, which PID 1 puts
	// into this folder (systemd.exec(5)).
	credential     = "holdfast.config"
	credentialsDir = "/run/credentials/@system"
)

// inputs are the documents a box on p may have, lowest precedence first. A
// metadata service is asked only on the platform that has it, and only with
// network.
func (e Env) inputs(p platform.Platform, network bool, about *Instance) []input {
	file := input{source: FromFile, name: "file", where: `\EFI\holdfast\config.yaml on the EFI system partition`,
		read: func(context.Context) reading { return e.readESP() }}
	file.layers = yamlLayers(FromFile, `\EFI\holdfast\config.yaml`)
	smbios := input{source: FromSMBIOS, name: "smbios", where: "SMBIOS credential " + credential,
		read: func(context.Context) reading { return e.readCredential() }}
	smbios.layers = yamlLayers(FromSMBIOS, smbios.where)

	all := []input{file}
	switch p {
	case platform.EC2:
		v := &visit{env: e, network: network, about: about, url: e.EC2, ask: cloud.Client.EC2}
		user := input{source: FromEC2, name: "ec2", where: "EC2 user-data", read: v.userData}
		user.layers = yamlLayers(FromEC2, user.where)
		pair := input{source: FromEC2Key, name: "ec2-key", where: "EC2 key pair", read: v.sshKey, layers: keyPairLayers}
		all = []input{pair, file, user}
	case platform.GCE:
		v := &visit{env: e, network: network, about: about, url: e.GCE, ask: cloud.Client.GCE}
		user := input{source: FromGCE, name: "gce", where: "GCE metadata user-data", read: v.userData}
		user.layers = yamlLayers(FromGCE, user.where)
		all = append(all, user)
	case platform.VMware:
		all = append(all,
			input{source: FromOVF, name: "ovf-environment", where: ovfWhere, layers: ovfLayers, lasting: true, read: e.readOVF},
			input{source: FromOVF, name: "guestinfo", where: guestinfoWhere, layers: guestinfoLayers, read: e.readGuestinfo})
	default:
		all = append(all,
			input{source: FromOVF, name: "ovf-environment", where: ovfWhere, layers: ovfLayers, lasting: true, read: e.readISO})
	}
	return append(all, smbios)
}

// yamlLayers is for sources whose document is the YAML itself.
func yamlLayers(source Source, name string) func([]byte) ([]layer, []Problem) {
	return func(data []byte) ([]layer, []Problem) {
		values, problems := parse(name, data)
		return []layer{{source, values}}, problems
	}
}

// nothing is what a source without a document gives.
func nothing(text string) reading { return reading{state: Absent, text: text} }

func unreachable(err error) reading {
	return reading{state: Unreachable, text: strings.Join(strings.Fields(err.Error()), " ")}
}

// found is a document; one of blanks only is none.
func document(data []byte) reading {
	if strings.TrimSpace(string(data)) == "" {
		return nothing("")
	}
	return reading{state: Applied, data: data}
}

// readESP reads the file straight from the partition of the disk the root is
// on: mounted, a FAT would be damaged by a power cut.
func (e Env) readESP() reading {
	root, err := slot.Running(e.path("/"))
	if err != nil {
		return unreachable(fmt.Errorf("the EFI system partition can't be found: %w", err))
	}
	part, err := root.Sibling(e.path("/"), "esp")
	if err != nil {
		return unreachable(fmt.Errorf("the EFI system partition can't be found: %w", err))
	}
	if part == "" {
		return nothing("disk " + root.Disk + " has no EFI system partition")
	}
	f, err := os.Open(e.path("/dev/" + part))
	if err != nil {
		return unreachable(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return unreachable(err)
	}
	files, err := esp.Read(f, size)
	if err != nil {
		return unreachable(fmt.Errorf("the EFI system partition %s can't be read: %w", part, err))
	}
	note := ""
	for _, file := range files {
		if strings.EqualFold(file.Path, espFile) {
			data, err := contentOf(file)
			if err != nil {
				return unreachable(fmt.Errorf("%s: %w", file.Path, err))
			}
			return document(data)
		}
		// Editors add .txt unseen.
		for _, alike := range []string{"EFI/holdfast/config.yml", espFile + ".txt", "EFI/holdfast/config.txt", "config.yaml"} {
			if strings.EqualFold(file.Path, alike) {
				note = file.Path + " is there, but only " + espFile + " is read; rename it"
			}
		}
	}
	return nothing(note)
}

// contentOf reads one byte more than a document may have, so that one that is
// too large is seen to be.
func contentOf(f esp.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, MaxDocument+1))
}

func (e Env) readCredential() reading {
	f, err := os.Open(e.path(credentialsDir + "/" + credential))
	if errors.Is(err, fs.ErrNotExist) {
		return nothing("")
	}
	if err != nil {
		return unreachable(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxDocument+1))
	if err != nil {
		return unreachable(err)
	}
	return document(data)
}

// visit asks a metadata service once for all documents it has.
type visit struct {
	env     Env
	network bool
	about   *Instance
	url     string
	ask     func(cloud.Client, context.Context) (cloud.Answer, error)

	done   bool
	answer cloud.Answer
	err    error
}

func (v *visit) userData(ctx context.Context) reading {
	return v.item(ctx, func(a cloud.Answer) cloud.Item { return a.UserData })
}

func (v *visit) sshKey(ctx context.Context) reading {
	return v.item(ctx, func(a cloud.Answer) cloud.Item { return a.SSHKey })
}

func (v *visit) item(ctx context.Context, pick func(cloud.Answer) cloud.Item) reading {
	if !v.network {
		return reading{state: Waiting, text: "it is asked for once the network is up"}
	}
	v.once(ctx)
	it := pick(v.answer)
	switch {
	case v.err != nil:
		return unreachable(v.err)
	case it.Err != nil:
		return unreachable(it.Err)
	case !it.Found:
		return nothing("")
	}
	return document(it.Data)
}

func (v *visit) once(ctx context.Context) {
	if v.done {
		return
	}
	v.done = true
	var late error
	if v.env.WaitNetwork != nil {
		v.env.say("waiting for the network, to ask for the configuration")
		// The service may be near even where the rest of the network is not:
		// it is asked all the same.
		late = v.env.WaitNetwork(ctx)
	}
	c := cloud.Client{Base: v.url, Pause: v.env.Pause, Limit: MaxDocument}
	v.answer, v.err = v.ask(c, ctx)
	if v.err != nil && late != nil {
		v.err = fmt.Errorf("%w (before that: %v)", v.err, late)
	}
	a := v.answer
	*v.about = Instance{ID: a.ID, Name: a.Name, Region: a.Region, Zone: a.Zone}
}
