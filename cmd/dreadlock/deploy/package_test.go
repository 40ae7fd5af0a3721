package deploy_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// root is that of the repository.
const root = "../../.."

// checkout returns a clone of the last commit, and the commit. The test that needs it is skipped where there is none.
func checkout(t *testing.T) (dir, commit string) {
	t.Helper()
	output, err := exec.Command("git", "-C", root, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Skip("packages and images are NOT tested: they are made of a commit, and there is none here")
	}
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	dir, commit = filepath.Join(t.TempDir(), "src"), strings.TrimSpace(string(output))
	run(t, "git", "clone", "--quiet", "file://"+repository, dir)
	run(t, "git", "-C", dir, "checkout", "--quiet", "--detach", commit)
	return dir, commit
}

// makePackages makes the packages of a checkout in a new folder with a version of Go. It lets the tests of other packages go first.
func makePackages(t *testing.T, source, version string, env ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "packages")
	command := exec.Command("nice", filepath.Join(source, ".ci", "package"), dir)
	command.Env = append(append(os.Environ(), "TOOLCHAIN="+version), env...)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, output)
	}
	return dir
}

// pinned returns the version of Go that packages are to be built with.
func pinned(t *testing.T) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^toolchain (go1\.\S+)$`).FindStringSubmatch(read(t, filepath.Join(root, ".ci", "package.mod")))
	if line == nil {
		t.Fatal(".ci/package.mod names no version of Go")
	}
	return line[1]
}

// toolchain returns the version of Go that packages are built with here: where the one that is pinned cannot be had, it is the one that is
// here.
func toolchain(t *testing.T) string {
	t.Helper()
	version := pinned(t)
	get := exec.Command("go", "version")
	get.Env = append(os.Environ(), "GOTOOLCHAIN="+version)
	output, err := get.CombinedOutput()
	if err == nil {
		return version
	}
	t.Logf("%s is NOT tested: %s", version, output)
	return strings.TrimSpace(run(t, "go", "env", "GOVERSION"))
}

// one returns the one file that fits a pattern.
func one(t *testing.T, pattern ...string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(pattern...))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v; want one file", pattern, found, err)
	}
	return found[0]
}

// run runs a command that must succeed, and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	command := exec.Command(name, args...)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, output)
	}
	return string(output)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A release is complete, the same whoever makes it, and its packages can be installed, used, upgraded and removed.
func TestPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("packages take a minute")
	}
	source, commit := checkout(t)
	version := toolchain(t)
	dir := makePackages(t, source, version)
	t.Run("reproducible", func(t *testing.T) {
		again := makePackages(t, source, version, "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GOFLAGS=-buildvcs=false", "TMPDIR="+t.TempDir())
		if one, two := read(t, filepath.Join(dir, "SHA256SUMS")), read(t, filepath.Join(again, "SHA256SUMS")); one != two {
			t.Errorf("two runs differ:\n%s\n%s", one, two)
		}
	})
	t.Run("sums", func(t *testing.T) {
		check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
		check.Dir = dir
		if output, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, output)
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if sums := strings.Count(read(t, filepath.Join(dir, "SHA256SUMS")), "\n"); sums != len(files)-1 {
			t.Errorf("%d checksums of %d files", sums, len(files)-1)
		}
	})
	t.Run("sbom", func(t *testing.T) { checkSBOM(t, dir, version) })
	t.Run("notes", func(t *testing.T) {
		if notes := read(t, filepath.Join(dir, "release-notes.md")); !strings.HasPrefix(strings.TrimSpace(notes), "- ") || strings.Contains(notes, "\n## ") {
			t.Errorf("%.300s", notes)
		}
	})
	t.Run("archive", func(t *testing.T) { checkArchives(t, dir, commit, version) })
	t.Run("deb", func(t *testing.T) { checkDeb(t, dir) })
	t.Run("rpm", func(t *testing.T) { checkRPM(t, dir) })
	t.Run("systemd", func(t *testing.T) { checkSystemd(t, dir) })
}

// What is in the programs is in the lists, with versions and checksums.
func checkSBOM(t *testing.T, dir, version string) {
	for _, arch := range []string{"amd64", "arm64"} {
		for program, want := range map[string][]string{
			"dreadlock":    {"github.com/panjf2000/gnet/v2", "github.com/rs/zerolog", "go.etcd.io/etcd/client/v3", "std"},
			"dreadlockctl": {"github.com/alecthomas/kong", "std"},
		} {
			var list struct {
				BOMFormat  string
				Components []struct{ Name, Version, PURL string }
			}
			if err := json.Unmarshal([]byte(read(t, one(t, dir, program+"-*-linux-"+arch+".cdx.json"))), &list); err != nil || list.BOMFormat != "CycloneDX" {
				t.Fatalf("%s: %v, format %q", program, err, list.BOMFormat)
			}
			versions := map[string]string{}
			for _, c := range list.Components {
				versions[c.Name] = c.Version
			}
			for _, name := range want {
				if versions[name] == "" {
					t.Errorf("%s, %s: %s is not listed", program, arch, name)
				}
			}
			if want := strings.TrimPrefix(version, "go"); strings.TrimPrefix(versions["std"], "go") != want {
				t.Errorf("%s: the standard library is %s, want %s", program, versions["std"], want)
			}
		}
	}
}

// The archives have programs for their architecture that need no library, and all of the rest.
func checkArchives(t *testing.T, dir, commit, version string) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		to := t.TempDir()
		run(t, "tar", "-xzf", one(t, dir, "dreadlock-*-linux-"+arch+".tar.gz"), "-C", to, "--strip-components=1")
		for _, name := range installed {
			if name == "share/man/man8/dreadlock.8" || name == "share/man/man1/dreadlockctl.1" {
				name += ".gz"
			}
			if _, err := os.Stat(filepath.Join(to, name)); err != nil {
				t.Errorf("%s: %v", arch, err)
			}
		}
		for _, program := range []string{"dreadlock", "dreadlockctl"} {
			path := filepath.Join(to, "bin", program)
			file, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if file.Machine != machine {
				t.Errorf("%s is for %v, want %v", program, file.Machine, machine)
			}
			for _, part := range file.Progs {
				if part.Type == elf.PT_INTERP {
					t.Errorf("%s for %s needs a loader", program, arch)
				}
			}
			file.Close()
			if arch == runtime.GOARCH {
				format := regexp.MustCompile(`^` + program + ` v\d\S+, commit ` + commit + ` of \S+, ` + regexp.QuoteMeta(version) + " linux/" + arch + "\n$")
				if got := run(t, path, "--version"); !format.MatchString(got) {
					t.Errorf("--version: %s", got)
				} else if page := run(t, "gzip", "-dc", one(t, to, "share/man/man?", program+".?.gz")); !strings.Contains(page, strings.TrimSuffix(strings.Fields(got)[1], ",")) {
					t.Errorf("the manual page is of another version: %.100s", page)
				}
			}
		}
	}
}

// installed are the files of make install, below the prefix; those of man are compressed.
var installed = []string{
	"bin/dreadlock", "bin/dreadlockctl", "share/man/man8/dreadlock.8", "share/man/man1/dreadlockctl.1",
	"share/bash-completion/completions/dreadlockctl", "share/zsh/site-functions/_dreadlockctl",
	"share/fish/vendor_completions.d/dreadlockctl.fish", "lib/systemd/system/dreadlock.service", "lib/systemd/system/dreadlock.socket",
}

// What make install puts somewhere, make uninstall takes away; the manual pages can be read, and the service runs the program that
// was installed.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the programs")
	}
	t.Setenv("GOTOOLCHAIN", toolchain(t)) // whose programs the cache has: those of the packages
	to := t.TempDir()
	do := func(target string) { run(t, "make", "-C", root, target, "DESTDIR="+to, "PREFIX=/opt/locks") }
	do("install")
	var got []string
	for path := range files(t, to) {
		got = append(got, strings.TrimSuffix(path, ".gz"))
	}
	if len(got) != len(installed) {
		t.Errorf("%q\nwant %q", got, installed)
	}
	for _, path := range installed {
		if !strings.Contains(strings.Join(got, "\n")+"\n", "/opt/locks/"+path+"\n") {
			t.Errorf("%s is missing", path)
		}
	}
	service := read(t, filepath.Join(to, "opt/locks/lib/systemd/system/dreadlock.service"))
	if !strings.Contains(service, "\nExecStart=/opt/locks/bin/dreadlock\n") {
		t.Error("the service runs another program")
	}
	for _, page := range []string{"man8/dreadlock.8.gz", "man1/dreadlockctl.1.gz"} {
		checkPage(t, filepath.Join(to, "opt/locks/share/man", page))
	}
	do("uninstall")
	if left := files(t, to); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// checkPage expects that groff has nothing to say about a manual page.
func checkPage(t *testing.T, path string) {
	t.Helper()
	page := run(t, "gzip", "-dc", path)
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Log("the manual pages are NOT read: no groff in PATH (apt-get install groff-base)")
		return
	}
	format := exec.Command(groff, "-man", "-Tutf8", "-ww")
	format.Stdin = strings.NewReader(page)
	var text, warnings bytes.Buffer
	format.Stdout, format.Stderr = &text, &warnings
	if err := format.Run(); err != nil || warnings.Len() > 0 || text.Len() < 1000 {
		t.Errorf("%s: %v, %d bytes\n%s", path, err, text.Len(), warnings.String())
	}
}

// files returns what is no directory below one, with what it is: mode, and size or target.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			all[strings.TrimPrefix(path, dir)] = info.Mode().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
