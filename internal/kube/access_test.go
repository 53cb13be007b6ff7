package kube

import (
	"errors"
	"os"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ktest "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// ruled makes a cluster that allows these, as VERB RESOURCE.
func ruled(t *testing.T, user string, allowed ...string) *Client {
	c, f := fakeClient()
	f.PrependReactor("create", "selfsubjectaccessreviews", func(a ktest.Action) (bool, runtime.Object, error) {
		r := a.(ktest.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		asked := r.Spec.ResourceAttributes
		if asked.Namespace != "mon" || asked.Name != "p" && asked.Name != "" {
			t.Errorf("asked for %s/%s", asked.Namespace, asked.Name)
		}
		resource := strings.TrimSuffix(asked.Resource+"/"+asked.Subresource, "/")
		for _, rule := range allowed {
			r.Status.Allowed = r.Status.Allowed || rule == asked.Verb+" "+resource
		}
		return true, r, nil
	})
	f.PrependReactor("create", "selfsubjectreviews", func(ktest.Action) (bool, runtime.Object, error) {
		if user == "" {
			return true, nil, errors.New("not served")
		}
		return true, &authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: authenticationv1.UserInfo{Username: user}}}, nil
	})
	return c
}

func TestMay(t *testing.T) {
	for _, c := range []struct {
		access  Access
		allowed []string
		want    string
	}{
		{ToFind, []string{"get pods"}, ""},
		{ToFind, []string{"list pods"}, "get pods"},
		{ToExec, []string{"get pods", "create pods/exec"}, ""},
		{ToExec, []string{"get pods", "get pods/exec"}, "create pods/exec"},
		{ToExec, []string{"get pods", "create pods"}, "create pods/exec"},
		{ToForward, []string{"get pods", "create pods/portforward"}, ""},
		{ToForward, []string{"get pods", "create pods/exec"}, "create pods/portforward"},
		{ToDebug, []string{"get pods", "patch pods/ephemeralcontainers", "create pods/exec"}, ""},
		{ToDebug, []string{"get pods", "create pods/exec"}, "patch pods/ephemeralcontainers"},
		{ToDebug, []string{"get pods", "patch pods/ephemeralcontainers"}, "create pods/exec"},
		{ToMount, []string{"create pods", "delete pods", "create pods/exec"}, ""},
		{ToMount, []string{"get pods", "create pods", "create pods/exec"}, "delete pods"},
		{ToRestart, []string{"delete pods"}, ""},
		{ToRestart, []string{"get pods"}, "delete pods"},
	} {
		err := ruled(t, "bob", c.allowed...).May(t.Context(), target, c.access)
		if c.want == "" {
			if err != nil {
				t.Errorf("%v with %q: %v", c.access, c.allowed, err)
			}
			continue
		}
		message, hint, code := told(err)
		if message != "not permitted: bob may not "+c.want+" in namespace mon" || code != 11 || !strings.HasSuffix(hint, Role(c.access, "mon", "bob")) {
			t.Errorf("%v with %q: %s\n%s", c.access, c.allowed, message, hint)
		}
	}
	// Who has no name gets a Role with a place for it.
	err := ruled(t, "").May(t.Context(), target, ToExec)
	if message, hint, _ := told(err); message != "not permitted: you may not get pods in namespace mon" || !strings.Contains(hint, `name: "YOUR-NAME"`) {
		t.Errorf("%s\n%s", message, hint)
	}
	// A cluster that does not even let one ask.
	c, f := fakeClient()
	forbid(f, "create", "selfsubjectaccessreviews")
	if err := c.May(t.Context(), target, ToExec); err != nil {
		t.Error(err)
	}
}

// The Roles can be applied: they are what they are meant to be when they are read.
func TestRole(t *testing.T) {
	for access := ToFind; access <= ToRestart; access++ {
		for _, namespace := range []string{"mon", ""} {
			role, binding, _ := strings.Cut(Role(access, namespace, "system:serviceaccount:ci:bot"), "---\n")
			var r rbacv1.Role
			var b rbacv1.RoleBinding
			if err := yaml.UnmarshalStrict([]byte(role), &r); err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict([]byte(binding), &b); err != nil {
				t.Fatal(err)
			}
			kind := map[string]string{"mon": "Role", "": "ClusterRole"}[namespace]
			if r.Kind != kind || b.Kind != kind+"Binding" || r.Namespace != namespace || b.Namespace != namespace || b.RoleRef.Kind != kind || b.RoleRef.Name != r.Name || r.Name != b.Name {
				t.Errorf("%s---\n%s", role, binding)
			}
			if s := b.Subjects[0]; len(b.Subjects) != 1 || s.Kind != rbacv1.ServiceAccountKind || s.Name != "bot" || s.Namespace != "ci" {
				t.Errorf("%+v", b.Subjects)
			}
			verbs := ""
			for _, rule := range r.Rules {
				verbs += rule.Resources[0] + " " + strings.Join(rule.Verbs, ",") + ";"
			}
			want := map[Access]string{
				ToFind:    "pods get,list;",
				ToExec:    "pods get,list;pods/exec create,get;",
				ToForward: "pods get,list;pods/portforward create,get;",
				ToDebug:   "pods get,list;pods/ephemeralcontainers patch;pods/exec create,get;",
				ToMount:   "pods create,get,list;pods delete;pods/exec create,get;",
				ToRestart: "pods delete,get,list;",
			}[access]
			if verbs != want {
				t.Errorf("%v: %s", access, verbs)
			}
		}
	}
	if !strings.Contains(Role(ToExec, "mon", "bob@example.com"), `subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "bob@example.com"}]`) {
		t.Error(Role(ToExec, "mon", "bob@example.com"))
	}
}

// docs/access.md has every Role as it is.
func TestRolesInDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	for access := ToFind; access <= ToRestart; access++ {
		if !strings.Contains(string(doc), "```yaml\n"+Role(access, "monitoring", "jane")+"```\n") {
			t.Errorf("docs/access.md lacks\n%s", Role(access, "monitoring", "jane"))
		}
	}
	if !strings.Contains(string(doc), Role(ToFind, "", "jane")) {
		t.Errorf("docs/access.md lacks\n%s", Role(ToFind, "", "jane"))
	}
}

func TestDenied(t *testing.T) {
	for _, c := range []struct{ says, message, hint string }{
		{`pods "p" is forbidden: User "bob" cannot create resource "pods/exec" in API group "" in the namespace "mon"`, "not permitted: bob may not create pods/exec in namespace mon", "kind: Role\n"},
		{`pods is forbidden: User "system:serviceaccount:a:b" cannot list resource "pods" in API group "" at the cluster scope`, "not permitted: system:serviceaccount:a:b may not list pods in all namespaces", "kind: ClusterRole\n"},
		{`users "dave" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope`, "not permitted: bob may not impersonate users in all namespaces", "leave out --as"},
		{`pods "p" is forbidden: User "bob" cannot impersonate-on:user-info:get resource "pods" in API group "" in the namespace "mon"`, "not permitted: bob may not impersonate-on:user-info:get pods in namespace mon", "leave out --as"},
		{`admission webhook "no-exec" denied the request: not in production`, `not permitted: admission webhook "no-exec" denied the request: not in production`, "a policy of the cluster refuses it"},
	} {
		message, hint, code := told(denied(c.says, ToExec))
		if message != c.message || !strings.Contains(hint, c.hint) || code != 11 {
			t.Errorf("%s\n%s\n%s", c.says, message, hint)
		}
	}
}

func TestArchitecture(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{Architecture: "arm64"}}}
	c, f := fakeClient(node)
	for name, want := range map[string]string{"n": "arm64", "gone": "", "": ""} {
		if got, err := c.Architecture(t.Context(), Target{Node: name}); got != want || err != nil {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	forbid(f, "get", "nodes")
	if got, err := c.Architecture(t.Context(), Target{Node: "n"}); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	c, f = fakeClient(node)
	f.PrependReactor("get", "nodes", func(ktest.Action) (bool, runtime.Object, error) { return true, nil, errors.New("broken") })
	if _, err := c.Architecture(t.Context(), Target{Node: "n"}); err == nil {
		t.Error("no error")
	}
}
