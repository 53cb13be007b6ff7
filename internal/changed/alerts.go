package changed

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

const alertMetric = "ALERTS"

// alerts makes rows of the ALERTS series that began to fire in the window.
func (t *table) alerts() (rows []Row) {
	byName := map[string]*Row{}
	for _, b := range t.births {
		ls := map[string]string{}
		for _, id := range t.items[b.item].pairs {
			ls[t.pairs[id].name] = t.pairs[id].value
		}
		if ls["alertstate"] == "pending" {
			continue
		}
		delete(ls, "alertstate")
		addAlert(t.plan, byName, ls, b.at, "")
	}
	return sortedAlerts(byName)
}

// alertRows makes rows of alerts that the caller knows of.
func alertRows(p *plan, all []Alert) []Row {
	byName := map[string]*Row{}
	for _, a := range all {
		ls := map[string]string{}
		a.Labels.Range(func(l labels.Label) {
			if l.Name != model.MetricNameLabel {
				ls[l.Name] = l.Value
			}
		})
		addAlert(p, byName, ls, a.Began, a.Source)
	}
	return sortedAlerts(byName)
}

// addAlert adds an alert to the row of its name. What a row's alerts do not share is not
// in its labels.
func addAlert(p *plan, byName map[string]*Row, ls map[string]string, at int64, source string) {
	name := ls["alertname"]
	r := byName[name]
	if r == nil {
		r = &Row{Kind: Firing, Metric: alertMetric, Labels: ls, Common: map[string]string{}, Up: true, Began: at, Metrics: 1}
		byName[name] = r
		r.Score = 0.5
		switch strings.ToLower(ls["severity"]) {
		case "critical", "page":
			r.Score = 0.62
		case "info", "none":
			r.Score = 0.25
		}
		r.family = alertMetric + "\xff" + name
		r.Query = fmt.Sprintf("ALERTS{alertname=%s,alertstate=\"firing\"}", quote(name))
		r.Queries = []Query{{"alert", r.Query}}
		p.frame(r)
		r.Reason = "the alert " + shown(name) + " began to fire"
		if source != "" {
			r.Reason += " by the rules of " + source
		}
	}
	r.Series++
	r.Of++
	r.Began = min(r.Began, at)
	for k, v := range r.Labels {
		if ls[k] != v {
			delete(r.Labels, k)
		}
	}
	r.pairs = []string{"alertname\xff" + name}
}

func sortedAlerts(byName map[string]*Row) (rows []Row) {
	for _, r := range byName {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.family, b.family) })
	return rows
}
