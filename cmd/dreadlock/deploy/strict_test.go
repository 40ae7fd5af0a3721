package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// prometheusExamples returns the configurations that documents show, whole: those of compose.yaml and of the admin interface. What is part
// of the configuration of a job is put into one.
func prometheusExamples(t *testing.T) (all []string) {
	t.Helper()
	var c compose
	decode(t, read(t, "compose.yaml"), &c)
	all = append(all, c.Configs["prometheus"].Content)
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```").FindAllStringSubmatch(read(t, root+"/server/admin/README.md"), -1)
	if len(blocks) < 2 {
		t.Errorf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		text := block[1]
		if !strings.Contains(text, "scrape_configs:") {
			text = "scrape_configs:\n- job_name: dreadlock\n  static_configs: [{targets: ['localhost:6002']}]\n  " + strings.ReplaceAll(text, "\n", "\n  ")
		}
		all = append(all, text)
	}
	return all
}

// The programs that the manifests are for take them: as they are, and not with a field misspelled.
func TestManifestsAreTaken(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program of many modules")
	}
	sources, program := filepath.Join(root, ".ci", "manifests"), filepath.Join(t.TempDir(), "manifests")
	if output, err := exec.Command("go", "list", "-C", sources, "-deps", ".").CombinedOutput(); err != nil {
		t.Skipf("the manifests are NOT read as kubectl, compose and Prometheus do: the modules for that cannot be had: %v\n%s", err, output)
	}
	run(t, "go", "build", "-C", sources, "-o", program, ".")
	take := func(kind, text string) (complaint string, err error) {
		// Beside the files to which compose.yaml refers.
		file, err := os.CreateTemp(".", "manifest-*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		output, err := exec.Command(program, kind, file.Name()).CombinedOutput()
		return string(output), err
	}
	for _, c := range []struct {
		kind         string
		texts        []string
		field, wrong string // in the last of them
	}{
		{"kubernetes", []string{read(t, "kubernetes.yaml")}, "failureThreshold", "failureTreshold"},
		{"compose", []string{read(t, "compose.yaml")}, "cap_drop", "capdrop"},
		{"prometheus", prometheusExamples(t), "credentials_file", "credential_file"},
	} {
		for _, text := range c.texts {
			if complaint, err := take(c.kind, text); err != nil {
				t.Errorf("%s: %v\n%s\n%s", c.kind, err, complaint, text)
			}
		}
		bad := strings.Replace(c.texts[len(c.texts)-1], c.field, c.wrong, 1)
		if complaint, err := take(c.kind, bad); err == nil || !strings.Contains(complaint, c.wrong) {
			t.Errorf("%s with %s: %v, %s", c.kind, c.wrong, err, complaint)
		}
	}
}
