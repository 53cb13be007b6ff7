package kube

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Flags are kubectl's usual flags: which cluster, as whom, in which namespace.
type Flags struct {
	config *genericclioptions.ConfigFlags
}

// NewFlags gives flags with kubectl's defaults.
func NewFlags() *Flags {
	f := genericclioptions.NewConfigFlags(true)
	f.CacheDir = nil // we discover nothing
	return &Flags{f}
}

// Add adds the flags to a set.
func (f *Flags) Add(fs *pflag.FlagSet) {
	f.config.AddFlags(fs)
	if t := fs.Lookup("request-timeout"); t != nil {
		t.Usage = "Maximum time to wait for the answer to a single request, for example 30s; 0 waits for ever. " +
			"It does not limit streams of data."
	}
}

// Client talks to one cluster as one user.
type Client struct {
	Namespace string // where things are looked for, unless told otherwise
	Context   string // of the kubeconfig; empty without one
	Server    string // the URL of the API server

	core  corev1.CoreV1Interface
	authz authorizationv1.AuthorizationV1Interface
	authn authenticationv1.AuthenticationV1Interface

	streams *rest.Config // without a timeout
	proxy   proxySetting
	times   times
	lives   lives
	noSPDY  atomic.Bool // it was refused: WebSocket is always first
}

// Client reads the kubeconfig. It does not talk to the cluster yet.
func (f *Flags) Client() (*Client, error) {
	loader := f.config.ToRawKubeConfigLoader()
	raw, err := loader.RawConfig()
	if err != nil {
		e := &ConfigError{Err: fmt.Errorf("read kubeconfig: %w", err), tip: "kubectl config view reads the same file"}
		if errors.Is(err, fs.ErrNotExist) {
			e.tip = "--kubeconfig FILE or KUBECONFIG=FILE names the kubeconfig"
		}
		return nil, e
	}
	name := cmp.Or(*f.config.Context, raw.CurrentContext)
	if _, ok := raw.Contexts[name]; name != "" && !ok {
		return nil, &ContextError{Name: name, Known: slices.Sorted(maps.Keys(raw.Contexts))}
	}
	config, err := loader.ClientConfig()
	if err != nil {
		e := &ConfigError{Err: fmt.Errorf("read kubeconfig: %w", err), tip: "kubectl config view shows what it has"}
		if clientcmd.IsEmptyConfig(err) {
			e = noConfig()
		}
		return nil, e
	}
	if err := f.nowhere(raw, name, config.Host); err != nil {
		return nil, err
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, &ConfigError{Err: fmt.Errorf("read kubeconfig: %w", err)}
	}
	c, err := newClient(config, namespace)
	if err != nil {
		return nil, &ConfigError{Err: fmt.Errorf("use kubeconfig: %w", err), tip: "kubectl config view shows what it has"}
	}
	c.Context = name
	return c, nil
}

// nowhere finds out why the host is not one that the user has named: where nothing
// is configured client-go takes a port of this machine, without a word.
func (f *Flags) nowhere(raw api.Config, context, host string) error {
	if host != "http://localhost:8080" || *f.config.APIServer != "" {
		return nil
	}
	cluster := *f.config.ClusterName
	if c := raw.Contexts[context]; c != nil {
		cluster = cmp.Or(cluster, c.Cluster)
	}
	_, ok := raw.Clusters[cluster]
	switch {
	case ok:
		return nil
	case len(raw.Contexts) == 0:
		return noConfig()
	case context == "":
		return &ConfigError{
			Err: errors.New("the kubeconfig has no current context"),
			tip: "choose with --context: " + strings.Join(slices.Sorted(maps.Keys(raw.Contexts)), ", "),
		}
	}
	return &ConfigError{
		Err: fmt.Errorf("the kubeconfig has no cluster %q, which context %q names", cluster, context),
		tip: "--context takes another: " + strings.Join(slices.Sorted(maps.Keys(raw.Contexts)), ", "),
	}
}

func noConfig() *ConfigError {
	return &ConfigError{
		Err: errors.New("no cluster is known: there is no kubeconfig"),
		tip: "--kubeconfig FILE or KUBECONFIG=FILE names one; the usual place is ~/.kube/config",
	}
}

func newClient(config *rest.Config, namespace string) (*Client, error) {
	config = rest.CopyConfig(config)
	config.WarningHandler = rest.NoWarnings{} // of deprecations, which are no matter of the user's
	config.QPS, config.Burst = 50, 100
	streams := rest.CopyConfig(config)
	streams.Timeout = 0
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON

	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	c := &Client{Namespace: namespace, Server: config.Host, streams: streams, proxy: proxyOf(config), times: usualTimes}
	if c.core, err = corev1.NewForConfigAndClient(config, client); err != nil {
		return nil, err
	}
	if c.authz, err = authorizationv1.NewForConfigAndClient(config, client); err != nil {
		return nil, err
	}
	if c.authn, err = authenticationv1.NewForConfigAndClient(config, client); err != nil {
		return nil, err
	}
	return c, nil
}
