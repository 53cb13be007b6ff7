package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/term"
)

// List implements cli.Lister. Beside what the cluster reports it tries what runs in
// each container whose memory allows that, several containers at the same time: an exec
// costs a third of a second.
func (p *pods) List(ctx context.Context, asked cli.Asked) (cli.Listing, error) {
	client, err := p.kube.Client()
	if err != nil {
		return cli.Listing{}, err
	}
	targets, err := client.List(ctx, p.query)
	if err != nil {
		return cli.Listing{}, err
	}
	wait := probeTime
	if asked.Terminal {
		wait = patientTime
	}
	rows, doubts := make([][]string, len(targets)), make([]doubt, len(targets))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, t := range targets {
		group.Go(func() error {
			ways, why := waysTo(ctx, client, t, asked, wait)
			rows[i] = append(row(t), ways)
			if strings.Contains(ways, "?") {
				doubts[i] = doubt{t.String(), why}
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return cli.Listing{}, err
	}
	columns := append(columns(), term.Column{Name: "ACCESS METHODS"})
	return cli.Listing{Columns: columns, Rows: rows, Legend: legend(doubts)}, nil
}

// doubt is why it could not be found out what works in a pod; without a reason there is
// none.
type doubt struct {
	pod string
	why string
}

// legend explains the question marks, a line for each reason.
func legend(doubts []doubt) (lines []string) {
	var reasons []string
	pods := map[string][]string{}
	for _, d := range doubts {
		if d.why == "" {
			continue
		}
		if pods[d.why] == nil {
			reasons = append(reasons, d.why)
		}
		pods[d.why] = append(pods[d.why], d.pod)
	}
	const named = 3
	for _, why := range reasons {
		all := pods[why]
		where := strings.Join(all[:min(named, len(all))], ", ")
		if more := len(all) - named; more > 0 {
			where += fmt.Sprintf(" and %d more", more)
		}
		lines = append(lines, fmt.Sprintf("? may work, or not: %s (%s)", why, where))
	}
	return lines
}

func columns() []term.Column {
	return []term.Column{{Name: "NAMESPACE"}, {Name: "POD"}, {Name: "CONTAINER"}, {Name: "IMAGE"}, {Name: "DATA DIR"}, {Name: "PHASE"}}
}

func row(t kube.Target) []string {
	dir := t.DataDir
	if dir == "" {
		dir = t.Candidates[0] + "?" // the likeliest
	}
	phase := t.Phase
	if why, _, _ := strings.Cut(t.Reason, ","); !t.Running && why != "" {
		phase += " (" + why + ")"
	}
	return []string{t.Namespace, t.Pod, t.Container, t.Image, dir, phase}
}

const (
	atOnce      = 10               // containers that are tried at the same time
	probeTime   = 5 * time.Second  // for one of them
	patientTime = 20 * time.Second // where a person waits: an exec on a busy node takes that long
)

// inside is what was found of a Prometheus.
type inside struct {
	sh, tar chance // in its container
	server  chance // answers
	debug   chance // a debug container would have its data
	claim   chance // its data lies on a claim
}

// chance is how likely something works.
type chance int

const (
	never   chance = iota - 1
	perhaps        // it could not be found out
	surely
)

// works tells by what a way works, as far as that was found out.
var works = map[via]func(inside) chance{
	viaExec:   func(in inside) chance { return max(in.sh, in.tar) },
	viaTar:    func(in inside) chance { return in.tar },
	viaRemote: func(in inside) chance { return in.server },
	viaDebug:  func(in inside) chance { return in.debug },
	viaPVC:    func(in inside) chance { return in.claim },
}

// waysTo returns the access methods that work, and why some are unknown.
func waysTo(ctx context.Context, client *kube.Client, t kube.Target, asked cli.Asked, wait time.Duration) (ways, why string) {
	if t.Container == "" {
		return "none: -c names the container", ""
	}
	allowed := map[kube.Access]bool{}
	for _, v := range all {
		if _, known := allowed[access[v]]; !known {
			err := client.May(ctx, t, access[v])
			_, denied := errors.AsType[*kube.PermissionError](err)
			allowed[access[v]] = !denied
		}
	}
	in := inside{sh: never, tar: never, server: never, debug: never, claim: never}
	if t.Claim != "" {
		in.claim = surely
	}
	if !t.Over && (t.Running || t.OnVolume) {
		in.debug = surely
	}
	if t.Running {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if err := in.try(ctx, client, exec(client, t), t, allowed, func(ctx context.Context) (chance, error) { return listens(ctx, client, t) }); errors.Is(err, context.DeadlineExceeded) {
			why = fmt.Sprintf("no answer came within %v", wait)
		} else if err != nil {
			why = err.Error()
		}
	}
	asked.Logger.Debug("ways", "pod", t.String(), "allowed", allowed, "inside", in, "unknown", why)
	return describeWays(allowed, in), why
}

// try finds out what runs in a container and whether its server listens. Commands run one
// after the other, since their memory is the server's, and none runs if that is short. The
// error is why something is unknown.
func (in *inside) try(ctx context.Context, c cluster, run pod.Exec, t kube.Target, allowed map[kube.Access]bool,
	listens func(context.Context) (chance, error),
) error {
	var group sync.WaitGroup
	errs := make([]error, 3)
	if allowed[kube.ToExec] {
		group.Go(func() {
			if errs[0] = mayTry(ctx, c, t); errs[0] != nil {
				in.sh, in.tar = perhaps, perhaps
				return
			}
			in.sh, errs[0] = runs(ctx, run, "sh", "-c", "exit 0")
			in.tar, errs[1] = runs(ctx, run, "tar", "--version")
		})
	}
	if allowed[kube.ToForward] {
		group.Go(func() { in.server, errs[2] = listens(ctx) })
	}
	group.Wait()
	if t.Distroless() {
		for i, c := range []*chance{&in.sh, &in.tar} {
			if *c == perhaps {
				*c, errs[i] = never, nil
			}
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// mayTry returns an error if no command may run in a container just to see whether it does:
// the memory is short, or it is not known and was too little before.
func mayTry(ctx context.Context, c cluster, t kube.Target) error {
	m, err := c.Memory(ctx, t)
	if err != nil {
		return fmt.Errorf("look at the memory of container %s: %w", t.Container, err)
	}
	need := pod.ExecNeed()
	known, from := outside(m, need)
	switch limited := m.Limit > 0 || m.PodLimit > 0; {
	case known.Limit > 0 && known.Free() < need, outgrown(m, known):
		return fmt.Errorf("no command is tried where less than %s of memory are left (by %s)", mibUp(need), from)
	case known.Limit == 0 && limited && m.OOMKilled:
		return errors.New("no command is tried where the memory that is left is not known, and the kernel killed the last run for lack of it")
	}
	return nil
}

// listens connects to the server's port: what is closed ends at once, what is open
// waits to be asked.
func listens(ctx context.Context, client *kube.Client, t kube.Target) (chance, error) {
	conn, err := client.Dial(ctx, t, t.Port)
	if err != nil {
		return perhaps, err
	}
	defer func() { _ = conn.Close() }()
	const moment = 500 * time.Millisecond
	if err := conn.SetReadDeadline(time.Now().Add(moment)); err != nil {
		return perhaps, err
	}
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return surely, nil
	}
	return never, nil
}

// runs tries a command that does nothing and ends at once. Any exit status proves that it
// is there. Where that could not be found out, the error says why.
func runs(ctx context.Context, run pod.Exec, command ...string) (chance, error) {
	err := run(ctx, command, pod.Streams{Out: io.Discard, Err: io.Discard})
	_, none := errors.AsType[*pod.AgentError](err)
	_, failed := errors.AsType[*pod.ExitError](err)
	switch {
	case none:
		return never, nil
	case err == nil, failed:
		return surely, nil
	}
	return perhaps, err
}

// describeWays lists the ways that are allowed and not surely in vain. One of which
// it could not be found out has a question mark.
func describeWays(allowed map[kube.Access]bool, in inside) string {
	var open, closed []string
	for _, v := range all {
		switch works[v](in) {
		case surely:
			if allowed[access[v]] {
				open = append(open, string(v))
			} else {
				closed = append(closed, string(v))
			}
		case perhaps:
			if allowed[access[v]] {
				open = append(open, string(v)+"?")
			}
		}
	}
	switch {
	case len(open) > 0:
		return strings.Join(open, ", ")
	case len(closed) > 0:
		return "none: not allowed are " + strings.Join(closed, ", ")
	}
	return "none"
}

// explain shows the choice when there are several.
func explain(err error) error {
	several, ok := errors.AsType[*kube.SeveralError](err)
	if !ok {
		return err
	}
	var table strings.Builder
	var rows [][]string
	for _, t := range several.Targets {
		rows = append(rows, row(t))
	}
	if terr := term.Table(&table, columns(), rows); terr != nil {
		return err
	}
	return fmt.Errorf("%w:\n%s", err, strings.TrimRight(table.String(), "\n"))
}
