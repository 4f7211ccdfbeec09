// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/chunk"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// noise are bytes that no chunk of another seed's has.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var s [32]byte
	s[0], s[1] = byte(seed), byte(seed>>8)
	mathrand.NewChaCha8(s).Read(b)
	return b
}

// makeRelease is the verb mkrelease DIR VERSION [system] of scripts: a small
// release "demo" as a bake leaves it. Releases of equal systems share them;
// otherwise most of the root is alike.
func makeRelease(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: mkrelease DIR VERSION [SYSTEM]")
	}
	system := args[1]
	if len(args) == 3 {
		system = args[2]
	}
	ts.Check(writeRelease(ts.MkAbs(args[0]), args[1], system))
}

func writeRelease(dir, version, system string) error {
	tmp, err := os.MkdirTemp("", "parts-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	seed := uint64(0)
	for _, c := range system {
		seed = seed*31%60_000 + uint64(c)
	}
	root := bytes.Join([][]byte{noise(1, 1<<20), noise(seed, 64<<10), noise(2, 1<<20)}, nil)
	uki := bytes.Join([][]byte{noise(3, 256<<10), noise(seed+1, 16<<10)}, nil)
	files := map[string][]byte{"uki": uki, "root": root, "boot": noise(4, 1000), "sbom": []byte(`{"bomFormat":"CycloneDX"}`)}
	for _, name := range []string{"uki", "root"} {
		x, err := chunk.Make(context.Background(), bytes.NewReader(files[name]))
		if err != nil {
			return err
		}
		files[name+"-chunks"] = x.Encode()
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), data, 0o644); err != nil {
			return err
		}
	}
	at := func(name string) string { return filepath.Join(tmp, name) }
	base := static.NewLayer(noise(5, 50_000), types.OCIUncompressedLayer)
	own := static.NewLayer([]byte("web "+version), types.OCIUncompressedLayer)
	web, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), base, own)
	if err != nil {
		return err
	}
	d := release.Description{
		Name: "demo", Version: version, Created: 1_700_000_000, Engine: "docker-28.0.0",
		OS:           release.OS{Version: "13-test", RootHash: fmt.Sprintf("%064x", seed)},
		Verity:       &release.Verity{Salt: strings.Repeat("ab", 32), UUID: strings.Repeat("12", 16), Bytes: int64(len(root)) + 5*4096},
		Requirements: release.Requirements{Memory: 1 << 30, CPUs: 500},
	}
	_, err = release.WriteFull(context.Background(), dir, d, []byte("stack "+version), map[string]v1.Image{"holdfast.demo/web:" + tagOf(version): web}, release.PartFiles{
		UKI: at("uki"), UKIChunks: at("uki-chunks"), Root: at("root"), RootChunks: at("root-chunks"), Boot: at("boot"), SBOM: at("sbom"),
	}, rsaKey())
	return err
}

// flipBit is the verb flip of scripts.
func flipBit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE BYTE")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	data[n] ^= 4
	ts.Check(os.WriteFile(path, data, 0o644))
}
