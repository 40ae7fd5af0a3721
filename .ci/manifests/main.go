// Manifests reads files as the programs that they are for do, and refuses what these would refuse or pass over, as a misspelled field:
//
//	go run -C .ci/manifests . kubernetes|compose|prometheus FILE...
//
// It is a module of its own, since what it needs is much, and nothing else needs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/prometheus/prometheus/config"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

var kinds = map[string]func(path string) error{"kubernetes": kubernetes, "compose": compose, "prometheus": prometheus}

func main() {
	err := errors.New("usage: manifests kubernetes|compose|prometheus FILE...")
	if len(os.Args) > 2 && kinds[os.Args[1]] != nil {
		err = nil
		for _, path := range os.Args[2:] {
			if bad := kinds[os.Args[1]](path); bad != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", path, bad))
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// kubernetes reads every document of a file into the type of its object, as kubectl apply --validate=strict does.
func kubernetes(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	scheme := runtime.NewScheme()
	if err := errors.Join(appsv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewDocumentDecoder(file)
	defer documents.Close()
	for n := 1; ; n++ {
		text := make([]byte, 1<<20)
		size, err := documents.Read(text)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			_, _, err = decoder.Decode(text[:size], nil, nil)
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
	}
}

// compose loads a project as docker compose does: by the schema, with what the file refers to.
func compose(path string) error {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithWorkingDirectory(filepath.Dir(path)), cli.WithConsistency(true))
	if err != nil {
		return err
	}
	_, err = options.LoadProject(context.Background())
	return err
}

// prometheus loads a configuration, as promtool check config does without looking at other files.
func prometheus(path string) error {
	_, err := config.LoadFile(path, false, slog.New(slog.DiscardHandler))
	return err
}
