// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxFiles and maxBytes bound a stack folder's tar: the box keeps it in
	// memory while it checks and unpacks it.
	maxFiles = 4096
	maxBytes = 64 << 20

	plainFiles = "a stack's files are plain files in its folder"
	addIt      = "add it to the stack folder"
)

// file is one entry of the stack's tar.
type file struct {
	rel  string // slash path below the stack folder
	dir  bool
	mode fs.FileMode // 0644 or 0755
	size int64
}

// lookAt is Lstat for a path all of whose parts must be plain: no link may
// lead out of the folder, and the tar has none.
func (l *loading) lookAt(rel string) (fs.FileInfo, error) {
	if !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("%s leaves the stack folder", rel)
	}
	var st fs.FileInfo
	var err error
	parts := strings.Split(path.Clean(rel), "/")
	for i := range parts {
		here := path.Join(parts[:i+1]...)
		if st, err = l.root.Lstat(here); err != nil {
			return nil, err
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			return nil, fmt.Errorf("%s is a symbolic link", here)
		}
	}
	return st, nil
}

// readFile reads a plain file of at most limit bytes.
func (l *loading) readFile(rel string, limit int64) ([]byte, error) {
	st, err := l.lookAt(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", rel, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", rel)
	}
	f, err := l.root.Open(rel)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", rel, limit)
	}
	return data, nil
}

// addFile puts a file, or a folder with all below it, and the folders above
// it into the tar. at is the key that names it.
func (l *loading) addFile(rel string, at *Problem) {
	if at == nil {
		at = &Problem{File: rel}
	}
	rel = path.Clean(rel)
	if err := l.addTree(rel); err != nil {
		p := *at
		p.Text, p.Mend = err.Error(), plainFiles
		if errors.Is(err, fs.ErrNotExist) {
			p.Text, p.Mend = rel+" does not exist", addIt
		}
		l.probs.add(p)
	}
}

func (l *loading) addTree(rel string) error {
	st, err := l.lookAt(rel)
	if err != nil {
		return err
	}
	for up := path.Dir(rel); up != "."; up = path.Dir(up) {
		l.put(file{rel: up, dir: true, mode: 0o755})
	}
	if !st.IsDir() {
		return l.addPlain(rel, st)
	}
	f, err := l.root.Open(rel)
	if err != nil {
		return err
	}
	// One more than can be taken, so that a huge folder costs no memory.
	names, err := f.Readdirnames(maxFiles + 1)
	f.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if rel != "." {
		l.put(file{rel: rel, dir: true, mode: 0o755})
	}
	for _, name := range names {
		if len(l.files) > maxFiles {
			break
		}
		if err := l.addTree(path.Join(rel, name)); err != nil {
			return err
		}
	}
	if len(l.files) > maxFiles {
		return fmt.Errorf("the stack has more than %d files", maxFiles)
	}
	return nil
}

func (l *loading) addPlain(rel string, st fs.FileInfo) error {
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a plain file", rel)
	}
	f := file{rel: rel, mode: 0o644, size: st.Size()}
	if st.Mode()&0o111 != 0 {
		f.mode = 0o755
	}
	if err := tar.NewWriter(io.Discard).WriteHeader(f.header()); err != nil {
		return fmt.Errorf("%q is no name for a stack's file: use up to 100 plain ASCII characters", rel)
	}
	l.put(f)
	if l.bytes > maxBytes {
		return fmt.Errorf("the stack's files have more than %d MiB", maxBytes>>20)
	}
	return nil
}

func (l *loading) put(f file) {
	if !l.have[f.rel] {
		l.have[f.rel] = true
		l.files, l.bytes = append(l.files, f), l.bytes+f.size
	}
}

// collectFiles puts into the tar what the merged model names, while its paths
// are still relative.
func (l *loading) collectFiles(dict map[string]any) {
	for _, section := range []string{"configs", "secrets"} {
		objects, _ := dict[section].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(objects)) {
			m, _ := objects[name].(map[string]any)
			if f, ok := m["file"].(string); ok {
				l.named([]string{section, name, "file"}, f, true, "")
			}
		}
	}
	services, _ := dict["services"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(services)) {
		svc, _ := services[name].(map[string]any)
		l.containerFiles([]string{"services", name}, svc)
		inits, _ := svc["pre_start"].([]any)
		for i, e := range inits {
			init, _ := e.(map[string]any)
			l.containerFiles([]string{"services", name, "pre_start", fmt.Sprint(i)}, init)
		}
	}
}

// containerFiles is collectFiles for a service or an init container.
func (l *loading) containerFiles(at []string, svc map[string]any) {
	key := func(more ...string) []string { return slices.Concat(at, more) }
	envFiles, _ := svc["env_file"].([]any)
	for i, e := range envFiles {
		m, _ := e.(map[string]any)
		rel, _ := m["path"].(string)
		required, _ := m["required"].(bool)
		l.named(key("env_file", fmt.Sprint(i)), rel, required || m["required"] == nil, "")
	}
	labelFiles, _ := svc["label_file"].([]any)
	for i, e := range labelFiles {
		rel, _ := e.(string)
		l.named(key("label_file", fmt.Sprint(i)), rel, true, "")
	}
	volumes, _ := svc["volumes"].([]any)
	for i, e := range volumes {
		m, _ := e.(map[string]any)
		if m["type"] == "bind" {
			l.bind(key("volumes", fmt.Sprint(i)), m)
		}
	}
	options, _ := svc["security_opt"].([]any)
	for i, e := range options {
		l.securityOption(key("security_opt", fmt.Sprint(i)), fmt.Sprint(e))
	}
}

// named adds a file that a key names by its path.
func (l *loading) named(key []string, rel string, required bool, mend string) {
	at := l.place(key)
	switch {
	case rel == "":
		l.report(key, "this is no path", "name a file in the stack folder")
	case filepath.IsAbs(rel) || strings.HasPrefix(rel, "~") || !filepath.IsLocal(path.Clean(rel)):
		l.report(key, rel+" is not in the stack folder", cmp.Or(mend, "name a file in the stack folder, by its relative path"))
	default:
		if _, err := l.lookAt(path.Clean(rel)); !required && errors.Is(err, fs.ErrNotExist) {
			return
		}
		l.addFile(rel, &at)
	}
}

// bind checks a bind mount: a read-only file or folder of the stack folder.
func (l *loading) bind(key []string, m map[string]any) {
	const mend = "use a named volume"
	src, _ := m["source"].(string)
	readOnly, _ := m["read_only"].(bool)
	if l.allowed(key, "volumes."+src) {
		return
	}
	switch {
	case strings.HasSuffix(src, "/docker.sock") || strings.HasSuffix(src, "/containerd.sock"):
		l.report(key, src+" is the engine's socket: "+noReach, dropIt+allowMend("volumes."+src))
	case filepath.IsAbs(src) || strings.HasPrefix(src, "~"):
		also := ""
		if filepath.IsAbs(src) {
			also = allowMend("volumes." + src)
		}
		l.report(key, src+" is a path of the host: "+noReach, mend+also)
	case !readOnly:
		l.report(key, src+" would be written to, and the stack folder on the box is read-only",
			mend+", or add :ro where the service only reads it")
	default:
		l.named(key, src, true, mend)
	}
}

func (l *loading) securityOption(key []string, opt string) {
	name, value, ok := strings.Cut(opt, "=")
	if !ok {
		name, value, _ = strings.Cut(opt, ":")
	}
	switch {
	case name == "seccomp" && value != "unconfined" && value != "builtin":
		l.named(key, value, true, "")
		// What is no file has been reported.
		if data, err := l.readFile(path.Clean(value), maxCompose); err == nil && !json.Valid(data) {
			l.report(key, value+" is no JSON", "write a seccomp profile as the Docker engine takes it")
		}
	case opt == "systempaths=unconfined" && !l.allowed(key, "security_opt"):
		l.report(key, noReach, dropIt+allowMend("security_opt"))
	case name == "credentialspec":
		l.report(key, "is for Windows", dropIt)
	}
}

func (l *loading) place(key []string) Problem {
	f, line := l.src.line(key...)
	return Problem{File: f, Line: line, Key: strings.Join(key, ".")}
}
