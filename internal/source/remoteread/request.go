package remoteread

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/promapi"
	"github.com/promdump/promdump/internal/wire"
)

// query is one query of a request, and what comes off the labels of its series.
type query struct {
	matchers []*prompb.LabelMatcher
	strip    map[string]string
}

var matcherTypes = map[string]prompb.LabelMatcher_Type{
	"=": prompb.LabelMatcher_EQ, "!=": prompb.LabelMatcher_NEQ, "=~": prompb.LabelMatcher_RE, "!~": prompb.LabelMatcher_NRE,
}

// queries are what a selection asks for: each list of matchers, and of it the
// series that have external labels of their own apart from those that do not.
func queries(sel wire.Selection, external map[string]string, owned []string) ([]query, error) {
	lists := sel.Matchers
	if len(lists) == 0 {
		// One that every series matches, also one without a name.
		lists = [][]wire.Matcher{{{Type: "=~", Name: "__name__", Value: ".*"}}}
	}
	var all []query
	for _, list := range lists {
		var ms []*prompb.LabelMatcher
		for _, m := range list {
			t, ok := matcherTypes[m.Type]
			if !ok {
				return nil, fmt.Errorf("matcher type %q is not known", m.Type)
			}
			value := m.Value
			if v, ok := external[m.Name]; ok && t == prompb.LabelMatcher_EQ && v == value {
				// A server takes an equal matcher on an external label for one that its
				// series need not have. Here it means what it means in a data dir.
				t, value = prompb.LabelMatcher_RE, regexp.QuoteMeta(value)
			}
			ms = append(ms, &prompb.LabelMatcher{Type: t, Name: m.Name, Value: value})
		}
		for set := range 1 << len(owned) {
			q := query{matchers: slices.Clone(ms), strip: maps.Clone(external)}
			for i, name := range owned {
				t := prompb.LabelMatcher_NRE
				if set&(1<<i) != 0 {
					t = prompb.LabelMatcher_RE
					delete(q.strip, name)
				}
				q.matchers = append(q.matchers, &prompb.LabelMatcher{Type: t, Name: name, Value: regexp.QuoteMeta(external[name])})
			}
			all = append(all, q)
		}
	}
	return all, nil
}

// request makes a request of the server's.
func (s *Source) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	u := *s.o.URL
	u.User = nil // or it would be in messages
	u.Path = strings.TrimRight(u.Path, "/") + path
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if user := s.o.URL.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	req.Header.Set("User-Agent", "promdump")
	// What is unpacked on its way cannot be counted any more.
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

// post sends queries for a range. The caller closes the body of the answer.
func (se *session) post(ctx context.Context, all []*prompb.Query) (*http.Response, error) {
	b, err := (&prompb.ReadRequest{
		Queries:               all,
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES},
	}).Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := se.p.request(ctx, http.MethodPost, promapi.ReadPath, bytes.NewReader(snappy.Encode(nil, b)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	resp, err := se.do(req)
	if err != nil {
		return nil, transportError(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	defer drain(resp.Body)
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil && len(said) == 0 {
		return nil, transportError(ctx, err)
	}
	return nil, statusError(resp, string(said), promapi.ReadPath)
}

// kind is what an answer holds.
type kind int

const (
	streamed kind = iota
	sampled
)

// kindOf reads it off the headers. An answer of which nothing says where it ends
// is refused, unless its last query proves that.
func kindOf(resp *http.Response, proven bool) (kind, error) {
	content, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	encoding := resp.Header.Get("Content-Encoding")
	switch strings.ToLower(strings.TrimSpace(content)) {
	case "application/x-streamed-protobuf":
		if encoding != "" && encoding != "identity" {
			return 0, &ServerError{What: fmt.Sprintf("the answer is packed by %q, which nobody asked for", encoding), Tip: "something between here and the server packs it; ask the server itself"}
		}
		if resp.ContentLength < 0 && resp.ProtoMajor < 2 && !slices.Contains(resp.TransferEncoding, "chunked") && !proven {
			return 0, &ServerError{What: "the answer has neither a length nor HTTP's chunks: where it ends, or is cut, cannot be told", Tip: "a proxy before the server speaks HTTP/1.0; ask the server itself"}
		}
		return streamed, nil
	case "application/x-protobuf":
		return sampled, nil // snappy knows its length
	}
	what := "without a content type"
	if content != "" {
		what = "of content type " + strconv.Quote(content)
	}
	return 0, &AnswerError{What: what}
}

// otherAnswer returns an error if an answer begins like a page or like JSON. Such an
// answer is not damaged, so it is not requested again.
func otherAnswer(r *bufio.Reader) error {
	b, err := r.Peek(512)
	if len(b) == 0 || err != nil && !errors.Is(err, io.EOF) {
		return nil // the reader will meet the error
	}
	text := strings.TrimLeft(string(b), "\ufeff \t\r\n")
	if text == "" || text[0] != '<' && text[0] != '{' {
		return nil
	}
	for len(text) > 0 {
		c, n := utf8.DecodeRuneInString(text)
		if c == utf8.RuneError && len(text) < utf8.UTFMax && len(b) == 512 {
			break // the last one is cut
		}
		if c == utf8.RuneError || !unicode.IsPrint(c) && !strings.ContainsRune("\t\r\n", c) {
			return nil
		}
		text = text[n:]
	}
	return &AnswerError{What: promapi.Describe(b)}
}

// errStall ends a request whose answer does not move.
var errStall = errors.New("no byte came for too long")

// transportError is one of the connection.
func transportError(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStall) {
		return &tooMuch{errStall}
	}
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	return &broken{err: err, cut: errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)}
}

// unreachable is the error of a server that was never there.
func unreachable(name string, err error) error {
	lost, ok := errors.AsType[*LostError](err)
	if !ok {
		return err
	}
	e := &ServerError{What: fmt.Sprintf("ask %s: %v", name, lost.Err), Code: 10, Tip: "is the URL right, and can the server be reached from here?"}
	text := lost.Err.Error()
	switch {
	case strings.Contains(text, "x509: "), strings.Contains(text, "tls: "):
		e.Tip = "--tls-ca-file names who signed its certificate, --tls-server-name whom it is for; --tls-insecure-skip-verify takes any"
	case strings.Contains(text, "HTTP response to HTTPS client"):
		e.Tip = "the server speaks http, not https"
	}
	return e
}

func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return time.Duration(min(n, math.MaxInt32)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
