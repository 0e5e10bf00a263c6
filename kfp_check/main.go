// Command kfp_check says whether Kubeflow Pipelines accepts a compiled pipeline: it puts the file through the code of
// KFP's own API server, as an upload (template.New), a run (RunWorkflow) and a recurring run (ScheduledWorkflow) do,
// down to the Argo Workflow that the cluster would get.
//
//	kfp_check [-parameters '{"push": 0}'] [-workflow out.yaml] pipeline.yaml
//
// Exit codes: 0 accepted, 2 refused (standard error says why), 1 a fault of this program or of the machine.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kubeflow/pipelines/backend/src/apiserver/config/proxy"
	"github.com/kubeflow/pipelines/backend/src/apiserver/model"
	"github.com/kubeflow/pipelines/backend/src/apiserver/template"
	goyaml "gopkg.in/yaml.v3"
	"sigs.k8s.io/yaml"
)

const (
	accepted = 0
	fault    = 1
	refused  = 2
	// Any run id does: it only has to be one.
	runID = "00000000-0000-4000-8000-000000000000"
)

// refusal is what KFP says against a pipeline, with the step at which it does.
type refusal struct {
	stage string
	err   error
}

func (r refusal) Error() string { return r.stage + ": " + r.err.Error() }

func main() {
	parameters := flag.String("parameters", "{}", "parameters of the run, a JSON object; the defaults where left out")
	workflow := flag.String("workflow", "", "write the Argo Workflow of a run to this file")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: kfp_check [-parameters JSON] [-workflow FILE] PIPELINE.yaml")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(refused)
	}
	os.Exit(run(flag.Arg(0), *parameters, *workflow))
}

func run(path, parameters, workflow string) int {
	document, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return fault
	}
	made, err := check(document, parameters)
	var no refusal
	if errors.As(err, &no) {
		fmt.Fprintln(os.Stderr, no)
		return refused
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return fault
	}
	if workflow != "" {
		if err := os.WriteFile(workflow, made, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return fault
		}
	}
	fmt.Println("accepted as an upload, as a run and as a recurring run")
	return accepted
}

// check returns the Argo Workflow of a run of the pipeline, as YAML.
func check(document []byte, parameters string) (workflow []byte, err error) {
	// The API server would loop for ever over a file that is not YAML, and panics on some specs that are.
	if err := parses(document); err != nil {
		return nil, refusal{"upload", err}
	}
	stage := "upload"
	defer func() {
		if panicked := recover(); panicked != nil {
			err = refusal{stage, fmt.Errorf("the API server's code panics: %v", panicked)}
		}
	}()
	proxy.InitializeConfigWithEmptyForTests()
	pipeline, err := template.New(document, false, nil)
	if err != nil {
		return nil, refusal{stage, err}
	}
	if !pipeline.IsV2() {
		return nil, refusal{stage, errors.New("this is an Argo Workflow, not a pipeline spec")}
	}
	config := model.RuntimeConfig{Parameters: parameters}
	stage = "run"
	execution, err := pipeline.RunWorkflow(
		&model.Run{DisplayName: "check", K8SName: "check", PipelineSpec: model.PipelineSpec{RuntimeConfig: config}},
		template.RunWorkflowOptions{RunId: runID},
	)
	if err != nil {
		return nil, refusal{stage, err}
	}
	made, err := yaml.JSONToYAML([]byte(execution.ToStringForStore()))
	if err != nil {
		return nil, err
	}
	stage = "recurring run"
	job := &model.Job{DisplayName: "check", K8SName: "check", PipelineSpec: model.PipelineSpec{RuntimeConfig: config}}
	if _, err := pipeline.ScheduledWorkflow(job); err != nil {
		return nil, refusal{stage, err}
	}
	return made, nil
}

func parses(document []byte) error {
	decoder := goyaml.NewDecoder(bytes.NewReader(document))
	for {
		var value map[string]any
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if _, err := json.Marshal(value); err != nil {
			return fmt.Errorf("YAML that is not JSON: %w", err)
		}
	}
}
