// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
	"github.com/holdfast/holdfast/images/sign"
	"github.com/holdfast/holdfast/images/uefivars"
)

type secureBootOptions struct {
	out, key, cert string
	files          uefivars.Files
}

func secureBootCommand() *cobra.Command {
	var o secureBootOptions
	cmd := &cobra.Command{
		Use: "secure-boot [DIST]", Short: "write a disk's Secure Boot keys for firmware, AWS and Google", Args: upToOne,
		Long: `Writes the Secure Boot key set of a baked disk (the newest below dist/ by default)
to a folder, once in each form that some place takes: certificates (.cer) and
signature lists (.esl) for firmware menus and virtual machines, UefiData for an
AMI, and shieldedInstanceInitialState for a Google image. With --key it adds
signed variables (.auth), which firmware in setup mode and systemd-boot take.

The bake's certificate is PK, KEK and db, unless flags name others.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "out"); err != nil {
				return err
			}
			if (o.key == "") != (o.cert == "") {
				return usageError{fmt.Errorf("--key and --cert go together: the pair that PK belongs to")}
			}
			return writeKeys(o, args, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "the folder to write to")
	f.StringVar(&o.files.PK, "pk", "", "the platform key's certificate, PEM or DER")
	f.StringArrayVar(&o.files.KEK, "kek", nil, "certificates of key exchange keys; may be given again")
	f.StringArrayVar(&o.files.DB, "db", nil, "certificates that may sign programs; may be given again, signing.crt must be among them")
	f.StringArrayVar(&o.files.DBX, "dbx", nil, "a list of what may not start (.esl, or a published update); may be given again")
	f.StringVar(&o.key, "key", "", "PK's private key, for signed variables (.auth)")
	f.StringVar(&o.cert, "cert", "", "PK's certificate, for signed variables (.auth)")
	return cmd
}

func writeKeys(o secureBootOptions, args []string, answer io.Writer) error {
	dist, err := findDist(args)
	if err != nil {
		return err
	}
	keys, err := uefivars.Load(filepath.Join(dist, builder.CertName), o.files)
	if err != nil {
		return err
	}
	files, err := encodeKeys(keys)
	if err != nil {
		return err
	}
	if o.key != "" {
		pins, err := lock.Read(filepath.Join(dist, builder.LockName))
		if err != nil {
			return err
		}
		signed, err := signKeys(keys, o, time.Unix(pins.Epoch, 0))
		if err != nil {
			return err
		}
		files = append(files, signed...)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := durable.WriteFile(filepath.Join(o.out, f.name), f.data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(answer, "%s\t%d bytes\t%s\n", filepath.Join(o.out, f.name), len(f.data), f.what)
	}
	return nil
}

// keyFile is one file of the folder.
type keyFile struct {
	name, what string
	data       []byte
}

func encodeKeys(keys uefivars.KeySet) ([]keyFile, error) {
	vars, err := keys.Variables()
	if err != nil {
		return nil, err
	}
	var files []keyFile
	for _, list := range []struct {
		name  string
		certs []*x509.Certificate
	}{{"PK", []*x509.Certificate{keys.PK}}, {"KEK", keys.KEK}, {"db", keys.DB}} {
		for i, c := range list.certs {
			name := list.name + ".cer"
			if i > 0 {
				name = fmt.Sprintf("%s-%d.cer", list.name, i+1)
			}
			files = append(files, keyFile{name, "certificate (DER): firmware menus", c.Raw})
		}
	}
	for _, v := range vars {
		files = append(files, keyFile{v.Name + ".esl", "signature lists: firmware menus, virtual machines", v.Data})
	}
	aws, err := keys.AWS()
	if err != nil {
		return nil, err
	}
	gce, err := keys.GCE()
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(gce, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(files,
		keyFile{"aws-uefi-data.txt", "UefiData of RegisterImage (AWS)", []byte(aws)},
		keyFile{"gce-initial-state.json", "shieldedInstanceInitialState of images.insert (Google)", append(text, '\n')}), nil
}

// signKeys makes the .auth files, all signed by PK.
func signKeys(keys uefivars.KeySet, o secureBootOptions, at time.Time) ([]keyFile, error) {
	key, cert, err := sign.LoadPair(o.key, o.cert)
	if err != nil {
		return nil, err
	}
	if !cert.Equal(keys.PK) {
		return nil, fmt.Errorf("%s is the certificate %q, and PK is %q: give the pair that PK belongs to", o.cert, cert.Subject.CommonName, keys.PK.Subject.CommonName)
	}
	vars, err := keys.Variables()
	if err != nil {
		return nil, err
	}
	var files []keyFile
	for _, v := range vars {
		data, err := v.Auth(key, cert, at)
		if err != nil {
			return nil, err
		}
		files = append(files, keyFile{v.Name + ".auth", "signed variable: firmware in setup mode, systemd-boot", data})
	}
	return files, nil
}
