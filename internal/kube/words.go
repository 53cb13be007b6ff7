package kube

import (
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// commandLine is what the spec says of a container's command line, as words. It
// is empty where the image alone decides. A script for a shell is taken apart.
func commandLine(c *corev1.Container) []string {
	env := environment(c)
	var words []string
	for _, w := range slices.Concat(c.Command, c.Args) {
		w = expand(w, env)
		if isScript(words) {
			for _, part := range split(w) {
				words = append(words, expandShell(part, env))
			}
			continue
		}
		words = append(words, w)
	}
	return words
}

// isScript tells whether what comes after these words is a script.
func isScript(words []string) bool {
	if len(words) == 0 || !dashC.MatchString(words[len(words)-1]) {
		return false
	}
	// With one word alone the image's entrypoint is the shell.
	return len(words) == 1 || slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{"sh", "ash", "bash", "dash"}, path.Base(w))
	})
}

var (
	dashC    = regexp.MustCompile(`^-[a-z]*c$`)
	variable = regexp.MustCompile(`\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)`)
	shellVar = regexp.MustCompile(`\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))`)
)

func environment(c *corev1.Container) map[string]string {
	env := map[string]string{}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			env[e.Name] = expand(e.Value, env)
		}
	}
	return env
}

// expand does what the kubelet does with $(NAME). What is not known stays.
func expand(s string, env map[string]string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string {
		if m == "$$" {
			return "$"
		}
		if v, ok := env[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}

func expandShell(s string, env map[string]string) string {
	return shellVar.ReplaceAllStringFunc(s, func(m string) string {
		if v, ok := env[strings.Trim(m, "${}")]; ok {
			return v
		}
		return m
	})
}

// split takes a shell's script apart as far as it takes to find a flag in it.
func split(script string) []string {
	var words []string
	var word strings.Builder
	open := false // a word has begun, maybe without a letter
	quote := rune(0)
	escaped := false
	end := func() {
		if open {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	for _, r := range script {
		switch {
		case escaped:
			escaped = false
			if r != '\n' {
				word.WriteRune(r)
				open = true
			}
		case r == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, open = r, true
		case strings.ContainsRune(" \t\r\n;&|()<>", r):
			end()
		default:
			word.WriteRune(r)
			open = true
		}
	}
	end()
	return words
}

// flagOf finds a flag in a command line, as Prometheus reads it.
func flagOf(words []string, name string) (string, bool) {
	for i, w := range words {
		if v, ok := strings.CutPrefix(w, "--"+name+"="); ok {
			return v, true
		}
		if w == "--"+name && i+1 < len(words) {
			return words[i+1], true
		}
	}
	return "", false
}
