package cli

import (
	"errors"

	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source/remoteread"
)

const (
	hintOneServer = "give the URL of one server, not that of a Service or a load balancer in front of several; " +
		"in a cluster: kubectl promdump -n NAMESPACE -p POD --via remote-read"
	hintOtherAnswer = "is the URL that of a Prometheus, with its path prefix and without /api/v1/read? " +
		"Something else may answer there, " +
		"like the login page of a proxy: --basic-auth-user, --bearer-token-file or --header identify the client"
)

// serverHint is the hint for an error of a server that is asked over HTTP.
func serverHint(err error) string {
	_, replica := errors.AsType[*remoteread.ReplicaError](err)
	_, labels := errors.AsType[*remoteread.LabelsError](err)
	_, answer := errors.AsType[*remoteread.AnswerError](err)
	_, unknown := errors.AsType[*remoteread.UnknownError](err)
	_, wait := errors.AsType[*restore.AnswerError](err)
	_, several := errors.AsType[*restore.ReplicaError](err)
	switch {
	case replica:
		return hintOneServer
	case labels:
		return "if the config of the server was changed, run the command again; else " + hintOneServer
	case several:
		return "--wait takes the URL of the server on the data directory, " +
			"not that of a Service or a load balancer in front of several"
	case answer, wait:
		return hintOtherAnswer
	case unknown:
		return hintOtherAnswer + "; promdump dump does not need to know what the server has"
	}
	return ""
}

// serverCode returns the exit code for such an error, or Done if it has none of its
// own.
func serverCode(err error) ExitCode {
	_, answer := errors.AsType[*remoteread.AnswerError](err)
	_, unknown := errors.AsType[*remoteread.UnknownError](err)
	_, wait := errors.AsType[*restore.AnswerError](err)
	if answer || unknown || wait {
		return NoTarget
	}
	return Done
}
