// Stands where Gitea's own act_runner does, whose module is on no public proxy: it registers with Gitea, says what it
// can, and asks for work, all by the same protocol. It runs no job: one that it is given fails, and says why.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"code.gitea.io/actions-proto-go/runner/v1/runnerv1connect"
	"connectrpc.com/connect"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const version = "rehearsed"

type settings struct {
	Runner struct {
		File   string   `yaml:"file"`
		Labels []string `yaml:"labels"`
	} `yaml:"runner"`
}

// As act_runner keeps it.
type registration struct {
	UUID  string `json:"uuid"`
	Token string `json:"token"`
}

func main() {
	var given settings
	text, err := os.ReadFile(os.Getenv("CONFIG_FILE"))
	must(err)
	must(yaml.Unmarshal(text, &given))
	labels := make([]string, len(given.Runner.Labels))
	for i, label := range given.Runner.Labels {
		labels[i], _, _ = strings.Cut(label, ":")
	}
	known := &registration{}
	if text, err := os.ReadFile(given.Runner.File); err == nil {
		must(json.Unmarshal(text, known))
	}
	authorize := connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			request.Header().Set("x-runner-uuid", known.UUID)
			request.Header().Set("x-runner-token", known.Token)
			return next(ctx, request)
		}
	}))
	instance := strings.TrimSuffix(os.Getenv("GITEA_INSTANCE_URL"), "/") + "/api/actions"
	client := runnerv1connect.NewRunnerServiceClient(http.DefaultClient, instance, authorize)
	ctx := context.Background()
	if known.UUID == "" {
		token, err := os.ReadFile(os.Getenv("GITEA_RUNNER_REGISTRATION_TOKEN_FILE"))
		must(err)
		answer, err := client.Register(ctx, connect.NewRequest(&runnerv1.RegisterRequest{
			Name:    os.Getenv("GITEA_RUNNER_NAME"),
			Token:   strings.TrimSpace(string(token)),
			Version: version,
			Labels:  labels,
		}))
		must(err)
		known.UUID, known.Token = answer.Msg.Runner.Uuid, answer.Msg.Runner.Token
		text, err := json.Marshal(known)
		must(err)
		must(os.WriteFile(given.Runner.File+".new", text, 0o600))
		must(os.Rename(given.Runner.File+".new", given.Runner.File))
	}
	_, err = client.Declare(ctx, connect.NewRequest(&runnerv1.DeclareRequest{Version: version, Labels: labels}))
	must(err)
	log.Printf("runner %s is there for %s", known.UUID, strings.Join(labels, ", "))
	for seen := int64(0); ; time.Sleep(2 * time.Second) {
		answer, err := client.FetchTask(ctx, connect.NewRequest(&runnerv1.FetchTaskRequest{TasksVersion: seen}))
		if err != nil {
			log.Print(err)
			continue
		}
		seen = answer.Msg.TasksVersion
		if answer.Msg.Task != nil {
			refuse(ctx, client, answer.Msg.Task.Id)
		}
	}
}

func refuse(ctx context.Context, client runnerv1connect.RunnerServiceClient, task int64) {
	now := timestamppb.Now()
	line := &runnerv1.LogRow{Time: now, Content: "the rehearsal's runner runs no jobs"}
	_, err := client.UpdateLog(ctx, connect.NewRequest(&runnerv1.UpdateLogRequest{
		TaskId: task, Rows: []*runnerv1.LogRow{line}, NoMore: true,
	}))
	if err == nil {
		_, err = client.UpdateTask(ctx, connect.NewRequest(&runnerv1.UpdateTaskRequest{
			State: &runnerv1.TaskState{Id: task, Result: runnerv1.Result_RESULT_FAILURE, StartedAt: now, StoppedAt: now},
		}))
	}
	if err != nil {
		log.Print(err)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
