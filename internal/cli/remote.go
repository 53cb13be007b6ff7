package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/prometheus/common/config"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/source/remoteread"
)

// RemoteFlags are the flags of a remote read, as typed: how a server is asked, and
// who asks. The zero value asks as anybody does.
type RemoteFlags struct {
	headers      []string
	bearerFile   string
	user         string
	passwordFile string
	caFile       string
	certFile     string
	keyFile      string
	serverName   string
	insecure     bool
	keepExternal bool
	concurrency  int
}

// RemoteConfig is what they mean.
type RemoteConfig struct {
	http         config.HTTPClientConfig
	files        []string // must be readable
	keepExternal bool
	concurrency  int

	// Gentle asks for one window at a time, with pauses.
	Gentle bool

	// Options change how connections are made.
	Options []config.HTTPClientOption
}

// AddFlags adds the flags. Those of credentials and TLS get the prefix: kubectl has
// a --tls-server-name of its own.
func (f *RemoteFlags) AddFlags(fs *pflag.FlagSet, prefix string) {
	f.AddWhoFlags(fs, prefix)
	fs.IntVar(&f.concurrency, "concurrency", f.concurrency, fmt.Sprintf(
		"Maximum `number` of time windows that are requested from the server at once (default %d)",
		remoteread.DefaultConcurrency))
	fs.BoolVar(&f.keepExternal, "keep-external-labels", f.keepExternal,
		"If true, keep the server's external labels on the series")
}

// AddWhoFlags adds those that say who asks, and no remote read.
func (f *RemoteFlags) AddWhoFlags(fs *pflag.FlagSet, prefix string) {
	fs.StringArrayVar(&f.headers, prefix+"header", f.headers, "HTTP header for the server, as `name=value`, "+
		"for example X-Scope-OrgID=tenant; can be repeated")
	fs.StringVar(&f.bearerFile, prefix+"bearer-token-file", f.bearerFile,
		"Path to the `file` with the bearer token for the server")
	fs.StringVar(&f.user, prefix+"basic-auth-user", f.user, "User `name` for basic authentication")
	fs.StringVar(&f.passwordFile, prefix+"basic-auth-password-file", f.passwordFile,
		"Path to the `file` with the password for basic authentication")
	fs.StringVar(&f.caFile, prefix+"tls-ca-file", f.caFile,
		"Path to the `file` with the CA certificates that the server's certificate is verified with (PEM)")
	fs.StringVar(&f.certFile, prefix+"tls-cert-file", f.certFile, "Path to the `file` with the client certificate (PEM)")
	fs.StringVar(&f.keyFile, prefix+"tls-key-file", f.keyFile,
		"Path to the `file` with the private key of the client certificate (PEM)")
	fs.StringVar(&f.serverName, prefix+"tls-server-name", f.serverName,
		"Host `name` that the server's certificate must have (default: that of the URL)")
	fs.BoolVar(&f.insecure, prefix+"tls-insecure-skip-verify", f.insecure,
		"If true, do not verify the server's certificate")
}

// Given reports whether any of the flags was.
func (f *RemoteFlags) Given() bool {
	return len(f.headers) > 0 || f.bearerFile != "" || f.user != "" || f.passwordFile != "" || f.caFile != "" || f.certFile != "" ||
		f.keyFile != "" || f.serverName != "" || f.insecure || f.keepExternal || f.concurrency != 0
}

var token = regexp.MustCompile("^[0-9A-Za-z!#$%&'*+.^_`|~-]+$")

// Compile reads the flags. What is wrong with them is a usage error, in which no
// secret is repeated.
func (f *RemoteFlags) Compile() (c RemoteConfig, err error) {
	c.keepExternal, c.concurrency = f.keepExternal, f.concurrency
	if f.concurrency < 0 || f.concurrency > 10 {
		return c, usagef("a Prometheus answers ten remote reads at a time, whoever asks", "--concurrency %d is not from 1 to 10", f.concurrency)
	}
	// A redirect could take credentials where they were not meant for.
	c.http = config.HTTPClientConfig{EnableHTTP2: true, ProxyConfig: config.ProxyConfig{ProxyFromEnvironment: true}}
	headers := map[string]config.Header{}
	for i, h := range f.headers {
		at := strings.IndexAny(h, "=:")
		if at < 0 || !token.MatchString(h[:at]) {
			return c, usagef("like --header X-Scope-OrgID=tenant", "--header number %d is not name=value", i+1)
		}
		name, value := http.CanonicalHeaderKey(h[:at]), strings.TrimSpace(h[at+1:])
		if name == "Authorization" {
			kind, credentials, ok := strings.Cut(value, " ")
			if !ok {
				return c, usagef("like --header 'Authorization=Bearer …'", "--header Authorization has no scheme")
			}
			c.http.Authorization = &config.Authorization{Type: kind, Credentials: config.Secret(strings.TrimSpace(credentials))}
			continue
		}
		headers[name] = config.Header{Secrets: append(headers[name].Secrets, config.Secret(value))}
	}
	if len(headers) > 0 {
		c.http.HTTPHeaders = &config.Headers{Headers: headers}
		if err := c.http.HTTPHeaders.Validate(); err != nil {
			return c, &usageError{err: fmt.Errorf("--header: %w", err)}
		}
	}
	if f.bearerFile != "" {
		if c.http.Authorization != nil {
			return c, usagef("give one of them", "--bearer-token-file and --header Authorization are both given")
		}
		c.http.Authorization = &config.Authorization{Type: "Bearer", CredentialsFile: f.bearerFile}
	}
	if f.passwordFile != "" && f.user == "" {
		return c, usagef("--basic-auth-user names whose it is", "--basic-auth-password-file is given without a user")
	}
	if f.user != "" {
		c.http.BasicAuth = &config.BasicAuth{Username: f.user, PasswordFile: f.passwordFile}
	}
	c.http.TLSConfig = config.TLSConfig{CAFile: f.caFile, CertFile: f.certFile, KeyFile: f.keyFile, ServerName: f.serverName, InsecureSkipVerify: f.insecure}
	if (f.certFile == "") != (f.keyFile == "") {
		return c, usagef("", "--tls-cert-file and --tls-key-file come together")
	}
	if err := c.http.Validate(); err != nil {
		return c, &usageError{err: err, hint: "give one way to say who you are: basic auth, a bearer token or a header"}
	}
	for _, file := range []string{f.bearerFile, f.passwordFile, f.caFile, f.certFile, f.keyFile} {
		if file != "" {
			c.files = append(c.files, file)
		}
	}
	return c, nil
}

// Client asks as the flags say.
func (c RemoteConfig) Client() (*http.Client, error) {
	for _, file := range c.files {
		in, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read what the server is to be asked with: %w", err)
		}
		in.Close()
	}
	client, err := config.NewClientFromConfig(c.http, "promdump", c.Options...)
	if err != nil {
		return nil, fmt.Errorf("read what the server is to be asked with: %w", err)
	}
	return client, nil
}

// Source is the server at u. Name names it for a person; empty: the URL does.
func (c RemoteConfig) Source(u *url.URL, name string, asked Asked) (*remoteread.Source, error) {
	if _, err := c.Client(); err != nil { // before the first request
		return nil, err
	}
	return remoteread.New(remoteread.Options{
		URL: u, NewClient: c.Client, Name: name, Staging: asked.TempDir, Concurrency: c.concurrency,
		KeepExternalLabels: c.keepExternal, Gentle: c.Gentle, Note: asked.Note, Logger: asked.Logger,
	}), nil
}

// remoteKind is that of a server in a manifest.
const remoteKind = "remote-read"

// GentleHelp is that of --gentle.
const GentleHelp = "If true, read more slowly to disturb the server less: an agent, or promdump with -d, " +
	"at the lowest priority and while the server is idle; remote read one time window at a time, with pauses"

// dirOrURL is the Data of promdump: a data dir on this machine, or a running server.
type dirOrURL struct {
	dir    localDir
	url    string
	remote RemoteFlags
	gentle bool
}

func (d *dirOrURL) AddFlags(fs *pflag.FlagSet) {
	d.dir.AddFlags(fs)
	fs.StringVar(&d.url, "url", d.url, "`URL` of a running server, with its path prefix, to read by remote read")
	d.remote.AddFlags(fs, "")
	fs.BoolVar(&d.gentle, "gentle", d.gentle, GentleHelp)
}

func (d *dirOrURL) Given() bool { return d.dir.Given() || d.url != "" }

func (d *dirOrURL) Missing() error {
	switch {
	case d.dir.Given() && d.url != "":
		return usagef("give one of them", "both a data dir and a URL are given")
	case d.url == "" && !d.dir.Given():
		return usagef("-d DIR names it; --url URL is for a running server that can be reached", "no data dir is given")
	case d.url == "" && d.remote.Given():
		return usagef("-d reads files, --url asks a server", "flags for a server are given, and no --url")
	case d.url == "":
		return nil
	}
	if _, err := remoteread.ParseURL(d.url); err != nil {
		return usagef("like --url https://prometheus.example.com/prefix", "--url: %w", err)
	}
	_, err := d.remote.Compile()
	return err
}

func (d *dirOrURL) Open(ctx context.Context, asked Asked) (Opened, error) {
	if err := d.Missing(); err != nil {
		return Opened{}, err
	}
	if d.url == "" {
		dir := d.dir
		dir.gentle = d.gentle
		return dir.Open(ctx, asked)
	}
	u, err := remoteread.ParseURL(d.url)
	c, cerr := d.remote.Compile()
	if err := errors.Join(err, cerr); err != nil {
		return Opened{}, err
	}
	c.Gentle = d.gentle
	src, err := c.Source(u, "", asked)
	if err != nil {
		return Opened{}, err
	}
	return Opened{Source: src, Kind: remoteKind}, nil
}
