package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Verb is what an agent is asked to do.
type Verb string

const (
	DoRead      Verb = "read"      // tell the story that Call.Request asks for
	DoInventory Verb = "inventory" // answer with an Inventory
	DoInspect   Verb = "inspect"   // answer with a Target
	DoReceive   Verb = "receive"   // answer with Ready, take files and End as a stream on stdin, answer with Restored
	DoDiscard   Verb = "discard"   // remove what a receive with Call.Replace has taken away; answer with Discarded
)

// Call is what a client says first: one line of JSON on the agent's stdin. After
// it come lines without meaning, so that the agent knows that the client lives,
// and at last the line [Received]: the agent does not end before, since what is
// on its way when a process ends may be lost.
type Call struct {
	Version int      `json:"version"`
	Do      Verb     `json:"do"`
	Dirs    []string `json:"dirs"` // the data dir is the first of these that is one
	Request *Request `json:"request,omitempty"`
	Replace *Replace `json:"replace,omitempty"` // of DoReceive and DoDiscard
	Codec   Codec    `json:"codec"`
	Limits  Limits   `json:"limits"`
	Debug   bool     `json:"debug,omitempty"` // tell what is decided, on stderr
}

// Replace says that what is received takes the place of all that the data dir
// holds. A call with an ID that was carried out before gets its answer again, and
// nothing is done: the answer may have been lost.
type Replace struct {
	ID string `json:"id"` // a ULID, a new one for each replacement
}

// Limits are what an agent may take of the machine that it runs on.
type Limits struct {
	Memory    int64 `json:"memory,omitempty"`    // bytes; 0: the default
	Bandwidth int64 `json:"bandwidth,omitempty"` // bytes a second on the wire; 0: any
	Gentle    bool  `json:"gentle,omitempty"`    // send when the server has no work, at the lowest priority
}

// Window is how many bytes of a stream an agent keeps until the client acknowledges
// them, so that a stream that broke goes on at its byte. It bounds the speed, too: at
// 100 ms there and back, 8 MiB are 80 MiB a second.
func (l Limits) Window() int64 {
	memory := l.Memory
	if memory <= 0 {
		memory = 64 << 20
	}
	return min(max(memory/8, 512<<10), 8<<20)
}

// AckEvery is how many bytes a client acknowledges at once, or half of a window if that is
// less. More often would cost the API server and the kubelet a message each time.
const AckEvery = 512 << 10

// Lines that a client sends after its call.
const (
	Ping     = "ping"
	Ack      = "ack" // and how many bytes of the stream have arrived
	Received = "received"
	Bye      = "bye" // the agent need not wait for another connection
)

// ExitMemory is the exit code of an agent that stopped itself because the container ran
// short of memory, and could not send the [Failure].
const ExitMemory = 75

// Lines that an agent sends before its stream.
const (
	Started = "start" // and where it can be found again, if it waits: see [Place]

	// Attached is the beginning of another connection: how many bytes of the stream
	// there are now, and whether the call has come.
	Attached       = "attached"
	AttachedCalled = "called"
	AttachedNoCall = "call"
)

// ToAttach is the argument, before a Place's name, of the program that connects its
// streams with a running agent. Its exit code is CodeNoAgent if there is none.
const (
	ToAttach    = "attach"
	CodeNoAgent = 3
)

// Place is where a running agent is found again, for as long as it waits.
type Place struct {
	Name    string // of its socket
	Program string // path of what connects a command's streams with it
	Key     string // only its client has it
}

// String returns the place as a line has it.
func (p Place) String() string { return p.Name + " " + p.Key + " " + p.Program }

// ParsePlace reads what String returns.
func ParsePlace(s string) (Place, bool) {
	words := strings.SplitN(s, " ", 3)
	if len(words) != 3 {
		return Place{}, false
	}
	return Place{Name: words[0], Key: words[1], Program: words[2]}, true
}

// maxCall bounds a call, in bytes: one that goes on with a story names the blocks
// that it has.
const maxCall = 64 << 20

// WriteCall writes a call.
func WriteCall(w io.Writer, c Call) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode call: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// ReadCall reads a call. A call of another version gives a *VersionError.
func ReadCall(r *bufio.Reader) (Call, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return Call{}, noEOF(err)
		}
		if len(line) > maxCall {
			return Call{}, &FrameError{"the call has no end"}
		}
	}
	var c Call
	if err := json.Unmarshal(line, &c); err != nil {
		return Call{}, &FrameError{fmt.Sprintf("the call cannot be read: %v", err)}
	}
	if c.Version != Version {
		return Call{}, &VersionError{c.Version}
	}
	return c, nil
}

// Failure is an error of the far side, told in place of the rest of its story.
type Failure struct {
	Text string `json:"text"`
	Tip  string `json:"hint,omitempty"`
	Code int    `json:"code,omitempty"` // the exit code that it means; 0: that of any error

	// Memory is set if the agent has too little memory where it runs.
	Memory bool `json:"memory,omitempty"`
}

func (e *Failure) Error() string { return e.Text }

// Hint returns what to do about it.
func (e *Failure) Hint() string { return e.Tip }

// ExitCode is that of the client's command.
func (e *Failure) ExitCode() int { return max(e.Code, 1) }
