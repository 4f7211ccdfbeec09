// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"context"
	"errors"
	"io"
	"os"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
)

// errNoMachine answers every provisioner that wants a machine; shell-local and
// the like, which want none, run before the bake.
var errNoMachine = errors.New("a bake has no machine to provision: put it into the stack, or use extra_packages")

// noMachine is the communicator of a bake.
type noMachine struct{}

func (noMachine) Start(context.Context, *packersdk.RemoteCmd) error   { return errNoMachine }
func (noMachine) Upload(string, io.Reader, *os.FileInfo) error        { return errNoMachine }
func (noMachine) UploadDir(dst, src string, exclude []string) error   { return errNoMachine }
func (noMachine) Download(string, io.Writer) error                    { return errNoMachine }
func (noMachine) DownloadDir(src, dst string, exclude []string) error { return errNoMachine }
