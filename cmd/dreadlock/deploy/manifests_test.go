package deploy_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// manifest is what kubernetes.yaml describes.
type manifest struct {
	deployment deployment
	service    service
}

// head is what all objects of Kubernetes begin with.
type head struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct {
		Name   string
		Labels map[string]string
	}
}

type deployment struct {
	head `yaml:",inline"`
	Spec struct {
		Replicas int
		Strategy struct{ Type string }
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
	}
}

type pod struct {
	ServiceAccountToken *bool `yaml:"automountServiceAccountToken"`
	ServiceLinks        *bool `yaml:"enableServiceLinks"`
	Grace               int   `yaml:"terminationGracePeriodSeconds"`
	Security            struct {
		NonRoot bool   `yaml:"runAsNonRoot"`
		User    uint32 `yaml:"runAsUser"`
		Group   uint32 `yaml:"runAsGroup"`
		Files   uint32 `yaml:"fsGroup"`
		Seccomp struct {
			Type string
		} `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []container
	Volumes    []struct {
		Name   string
		Secret struct {
			Name string `yaml:"secretName"`
			Mode int    `yaml:"defaultMode"`
		}
	}
}

type container struct {
	Name, Image string
	Env         []struct{ Name, Value string }
	Ports       []struct {
		Name string
		Port int `yaml:"containerPort"`
	}
	Startup   probe `yaml:"startupProbe"`
	Readiness probe `yaml:"readinessProbe"`
	Liveness  probe `yaml:"livenessProbe"`
	Lifecycle struct {
		PreStop struct{ Exec struct{ Command []string } } `yaml:"preStop"`
	}
	Resources struct{ Requests, Limits map[string]string }
	Security  struct {
		Escalation   *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnly     bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities struct{ Drop []string }
	} `yaml:"securityContext"`
	Mounts []struct {
		Name     string
		Path     string `yaml:"mountPath"`
		ReadOnly bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTP struct{ Path, Port string } `yaml:"httpGet"`

	Period   int `yaml:"periodSeconds"`
	Timeout  int `yaml:"timeoutSeconds"`
	Failures int `yaml:"failureThreshold"`
}

type service struct {
	head `yaml:",inline"`
	Spec struct {
		Selector map[string]string
		Ports    []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
	}
}

// decode reads a document. A field that the type does not have, as a misspelled one, is an error.
func decode(t *testing.T, text string, into any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
}

func parseManifest(t *testing.T) *manifest {
	t.Helper()
	documents := strings.Split(read(t, "kubernetes.yaml"), "\n---\n")
	if len(documents) != 2 {
		t.Fatalf("%d documents", len(documents))
	}
	var m manifest
	decode(t, documents[0], &m.deployment)
	decode(t, documents[1], &m.service)
	return &m
}

// variables returns the environment variables that the daemon knows.
func variables(t *testing.T) []string {
	t.Helper()
	return regexp.MustCompile(`DREADLOCK_[A-Z_]+`).FindAllString(run(t, "go", "run", "dreadlock/cmd/dreadlock", "--help"), -1)
}

// There is one daemon, never two, and what is said in one place of the manifest is right in the others.
func TestKubernetes(t *testing.T) {
	m := parseManifest(t)
	spec := &m.deployment.Spec
	if m.deployment.APIVersion != "apps/v1" || m.deployment.Kind != "Deployment" || m.service.APIVersion != "v1" || m.service.Kind != "Service" {
		t.Errorf("%+v, %+v", m.deployment.head, m.service.head)
	}
	if spec.Replicas != 1 || spec.Strategy.Type != "Recreate" {
		t.Errorf("%d replicas, %s", spec.Replicas, spec.Strategy.Type)
	}
	for name, labels := range map[string]map[string]string{"deployment": spec.Selector.MatchLabels, "service": m.service.Spec.Selector} {
		for key, value := range labels {
			if spec.Template.Metadata.Labels[key] != value {
				t.Errorf("the %s selects %s=%s, which the pod does not have", name, key, value)
			}
		}
	}
	pod := &spec.Template.Spec
	c := &pod.Containers[0]
	ports := map[string]int{}
	for _, p := range c.Ports {
		ports[p.Name] = p.Port
	}
	if p := m.service.Spec.Ports[0]; ports[p.TargetPort] != 6001 || p.Port != 6001 {
		t.Errorf("the service: %+v", p)
	}
	for path, probes := range map[string][]probe{"/healthz": {c.Startup, c.Liveness}, "/readyz": {c.Readiness}} {
		for _, probe := range probes {
			if probe.HTTP.Path != path || probe.HTTP.Port != "admin" || ports["admin"] != 6002 {
				t.Errorf("a probe asks %+v", probe.HTTP)
			}
		}
	}
	known := variables(t)
	for _, v := range c.Env {
		if !slices.Contains(known, v.Name) {
			t.Errorf("the daemon knows no %s", v.Name)
		}
	}
	if !c.Security.ReadOnly || c.Security.Escalation == nil || *c.Security.Escalation || !slices.Equal(c.Security.Capabilities.Drop, []string{"ALL"}) ||
		!pod.Security.NonRoot || pod.Security.User != parseContainerfile(t).user {
		t.Error("the container may do more than it must")
	}
	if volume := pod.Volumes[0]; volume.Name != c.Mounts[0].Name || volume.Secret.Mode != 0o440 || pod.Security.Files != pod.Security.Group {
		t.Errorf("the token: %+v, %+v", volume, c.Mounts[0])
	}
	stop := c.Lifecycle.PreStop.Exec.Command
	if i := slices.Index(stop, "--timeout"); i < 0 || stop[i+1] != "45s" || pod.Grace <= 45 {
		t.Errorf("%q must end before the grace period does, %d s", stop, pod.Grace)
	}
}

// compose is compose.yaml, as far as ours goes.
type compose struct {
	Name     string
	Services map[string]struct {
		Image       string
		Build       struct{ Context, Dockerfile string }
		Environment map[string]string
		Ports       []string
		Network     string `yaml:"network_mode"`
		Restart     string
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
		Security    []string `yaml:"security_opt"`
		Grace       string   `yaml:"stop_grace_period"`
		Depends     map[string]struct {
			Condition string
			Restart   bool
		} `yaml:"depends_on"`
		Configs []struct{ Source, Target string }
	}
	Configs map[string]struct{ File, Content string }
}

// The files that compose.yaml names are there, Prometheus takes its configuration and finds the daemon, and Grafana finds
// Prometheus and the dashboard.
func TestCompose(t *testing.T) {
	var c compose
	decode(t, read(t, "compose.yaml"), &c)
	daemon := c.Services["dreadlock"]
	if _, err := os.Stat(filepath.Join(daemon.Build.Context, daemon.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	known := variables(t)
	for name := range daemon.Environment {
		if !slices.Contains(known, name) {
			t.Errorf("the daemon knows no %s", name)
		}
	}
	targets := map[string]string{} // what is at a path of Prometheus or Grafana
	for name, service := range c.Services {
		for _, one := range service.Configs {
			what, ok := c.Configs[one.Source]
			if !ok {
				t.Fatalf("%s: there is no config %s", name, one.Source)
			}
			if what.File != "" {
				what.Content = read(t, what.File)
			}
			targets[one.Target] = what.Content
		}
	}
	var prometheus struct {
		Global struct {
			Scrape     string `yaml:"scrape_interval"`
			Evaluation string `yaml:"evaluation_interval"`
		}
		Rules []string `yaml:"rule_files"`
		Jobs  []struct {
			Name   string                       `yaml:"job_name"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	decode(t, targets["/etc/prometheus/prometheus.yml"], &prometheus)
	for _, rules := range prometheus.Rules {
		if targets["/etc/prometheus/"+rules] == "" {
			t.Errorf("there is no %s", rules)
		}
	}
	job, network := prometheus.Jobs[0], c.Services["prometheus"].Network
	_, port, _ := strings.Cut(job.Static[0].Targets[0], ":")
	if env := strings.Join(parseContainerfile(t).env, "\n"); job.Name != "dreadlock" || !strings.Contains(env, "127.0.0.1:"+port) || network != "service:dreadlock" {
		t.Errorf("job %s asks port %s on %s; the image has\n%s", job.Name, port, network, env)
	}
	if source := targets["/etc/grafana/provisioning/datasources/dreadlock.yaml"]; !strings.Contains(source, `url: "http://dreadlock:9090"`) {
		t.Errorf("%s", source)
	}
	if !json.Valid([]byte(targets[c.Services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]])) {
		t.Error("the dashboard is missing")
	}
	for path, text := range targets {
		if strings.HasPrefix(path, "/etc/grafana") {
			if err := yaml.Unmarshal([]byte(text), new(map[string]any)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// The options in /etc/default/dreadlock, which are examples, are options of the daemon.
func TestDefaults(t *testing.T) {
	known := variables(t)
	examples := regexp.MustCompile(`(?m)^#(DREADLOCK_\w+)=\S`).FindAllStringSubmatch(read(t, "package/default"), -1)
	if len(examples) < 3 {
		t.Errorf("%q", examples)
	}
	for _, name := range examples {
		if !slices.Contains(known, name[1]) {
			t.Errorf("the daemon knows no %s", name[1])
		}
	}
}
