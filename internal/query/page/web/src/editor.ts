// The PromQL editor: CodeMirror with Prometheus' own language support. It lives
// in a shadow root, since there CodeMirror adopts its style sheets; in the
// document it would write <style> elements, which the page's
// Content-Security-Policy forbids.

import { acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, closeCompletion, completionKeymap, completionStatus, selectedCompletion, selectedCompletionIndex, startCompletion } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, insertNewlineAndIndent } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { lintKeymap, setDiagnostics } from "@codemirror/lint";
import { EditorState, Prec } from "@codemirror/state";
import { EditorView, keymap, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { PromQLExtension } from "@prometheus-io/codemirror-promql";
import type { CompleteStrategy } from "@prometheus-io/codemirror-promql/dist/esm/complete";
import { newCompleteStrategy } from "@prometheus-io/codemirror-promql/dist/esm/complete";
import type { PrometheusClient } from "@prometheus-io/codemirror-promql/dist/esm/client/prometheus";
import { get } from "./api";
import { selector } from "./series";
import type { Range } from "./time";

interface Matcher {
  type: unknown;
  name: string;
  value: string;
}

/**
 * What completion asks. The library's own client asks for the last hours until
 * now, when a dump has nothing.
 */
export class Names implements PrometheusClient {
  private readonly asked = new Map<string, Promise<string[]>>();

  constructor(private readonly range: Range) {}

  metricNames(): Promise<string[]> {
    return this.values("__name__");
  }

  labelNames(metric?: string): Promise<string[]> {
    return this.ask("api/v1/labels", metric);
  }

  labelValues(label: string, metric?: string): Promise<string[]> {
    return this.values(label, metric);
  }

  async series(metric: string, _matchers?: Matcher[], label?: string): Promise<Map<string, string>[]> {
    if (label) return (await this.values(label, metric)).map((v) => new Map([[label, v]]));
    return (await this.labelNames(metric)).map((n) => new Map([[n, ""]]));
  }

  // No dump has metadata, and no lookback of its own.
  metricMetadata = async () => ({});
  flags = async () => ({});

  private values(label: string, metric?: string): Promise<string[]> {
    // As Prometheus escapes names that a path cannot hold.
    const name = /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(label) ? label : "U__" + [...label].map((c) => (/[a-zA-Z0-9]/.test(c) ? c : c === "_" ? "__" : `_${c.codePointAt(0)!.toString(16)}_`)).join("");
    return this.ask(`api/v1/label/${name}/values`, metric);
  }

  private ask(path: string, metric?: string): Promise<string[]> {
    const key = path + " " + (metric ?? "");
    let answer = this.asked.get(key);
    if (!answer) {
      const params: [string, string][] = [["start", String(this.range.from / 1000)], ["end", String(this.range.to / 1000)]];
      if (metric) params.push(["match[]", selector(metric)]);
      answer = get<string[]>(path, params).catch(() => {
        this.asked.delete(key); // completion is a help: it fails in silence, and asks again
        return [];
      });
      this.asked.set(key, answer);
    }
    return answer;
  }
}

const colours = HighlightStyle.define([
  { tag: tags.number, color: "var(--syn-number)" },
  { tag: tags.string, color: "var(--syn-string)" },
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier], color: "var(--syn-keyword)", fontWeight: "500" },
  { tag: tags.function(tags.variableName), color: "var(--syn-function)" },
  { tag: tags.labelName, color: "var(--syn-label)" },
  { tag: tags.operator, color: "var(--dim)" },
  { tag: tags.comment, color: "var(--dim)", fontStyle: "italic" },
  { tag: tags.invalid, color: "var(--bad)" },
]);

const look = EditorView.theme({
  "&": { color: "var(--ink)", backgroundColor: "transparent", fontSize: "13px" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "20px" },
  ".cm-content": { padding: "7px 0", caretColor: "var(--accent)" },
  ".cm-line": { padding: "0 10px" },
  ".cm-placeholder": { color: "var(--dim)", fontFamily: "var(--sans)" },
  ".cm-cursor": { borderLeftColor: "var(--accent)", borderLeftWidth: "2px" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground, .cm-content ::selection": { backgroundColor: "var(--select) !important" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--select)", outline: "1px solid var(--line-strong)" },
  ".cm-tooltip": { backgroundColor: "var(--surface)", color: "var(--ink)", border: "1px solid var(--line-strong)", borderRadius: "4px", boxShadow: "var(--shadow)", overflow: "hidden" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", fontSize: "12px", maxHeight: "260px", minWidth: "260px" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "3px 10px", lineHeight: "18px", display: "flex", gap: "12px" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent-soft)", color: "var(--ink)" },
  ".cm-completionMatchedText": { textDecoration: "none", color: "var(--accent)", fontWeight: "600" },
  ".cm-completionLabel": { flex: "1" },
  ".cm-completionDetail": { color: "var(--dim)", fontStyle: "normal", fontFamily: "var(--sans)", margin: "0" },
  ".cm-completionIcon": { display: "none" },
  ".cm-tooltip.cm-completionInfo": { fontFamily: "var(--sans)", fontSize: "12px", padding: "6px 10px", maxWidth: "320px", lineHeight: "17px" },
  ".cm-diagnostic": { fontSize: "12px", padding: "4px 10px", borderLeft: "3px solid var(--bad)" },
});

export interface EditorEvents {
  run(text: string): void;
  change(text: string): void;
  leave(): void;
}

export class Editor {
  private readonly view: EditorView;

  constructor(host: HTMLElement, text: string, names: CompleteStrategy, label: string, events: EditorEvents) {
    const root = host.shadowRoot ?? host.attachShadow({ mode: "open", delegatesFocus: true });
    const promql = new PromQLExtension().setComplete({ completeStrategy: names }).activateLinter(false); // the server knows better, see mark
    // Who has typed an offer to its end wants to run it, not to take it. So does who
    // has closed a bracket or ended a word, after which operators are offered: those
    // are taken if they were chosen.
    const offered = ({ state }: EditorView) => {
      const { label = "" } = selectedCompletion(state) ?? {};
      const { head } = state.selection.main;
      if (completionStatus(state) !== "active" || state.sliceDoc(Math.max(0, head - label.length), head) === label) return false;
      return selectedCompletionIndex(state)! > 0 || !/([)\]}]\s*|\w\s+)$/.test(state.sliceDoc(0, head));
    };
    const run = (view: EditorView) => {
      closeCompletion(view);
      events.run(view.state.doc.toString());
      return true;
    };
    this.view = new EditorView({
      parent: root,
      root,
      state: EditorState.create({
        doc: text,
        extensions: [
          history(),
          closeBrackets(),
          bracketMatching(),
          indentUnit.of("  "),
          autocompletion({ icons: false, defaultKeymap: false }), // its keys would come before all others: Enter, too
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false" }),
          placeholder("A PromQL query, or / for the keys of this page"),
          syntaxHighlighting(colours),
          look,
          promql.asExtension(),
          // Before completion's own: there Enter takes the offer, which is right
          // only while one is shown.
          Prec.highest(
            keymap.of([
              { key: "Mod-Enter", run },
              { key: "Enter", run: (view) => (offered(view) && acceptCompletion(view)) || run(view) },
              { key: "Shift-Enter", run: insertNewlineAndIndent },
              { key: "Tab", run: acceptCompletion },
              { key: "Ctrl-Space", run: startCompletion },
            ]),
          ),
          keymap.of([
            ...completionKeymap,
            ...closeBracketsKeymap,
            ...historyKeymap,
            ...lintKeymap,
            ...defaultKeymap,
            { key: "Escape", run: () => (events.leave(), true) },
          ]),
          EditorView.domEventHandlers({ beforeinput: replace }),
          EditorView.updateListener.of((u) => {
            if (u.docChanged) events.change(u.state.doc.toString());
          }),
        ],
      }),
    });
  }

  get text(): string {
    return this.view.state.doc.toString();
  }

  set text(text: string) {
    if (text === this.text) return;
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: text }, selection: { anchor: text.length } });
  }

  focus(): void {
    this.view.focus();
    this.view.dispatch({ selection: { anchor: this.view.state.doc.length } });
  }

  blur(): void {
    this.view.contentDOM.blur();
  }

  /** Marks where the server found an error; line and column from 1. */
  mark(at: { line: number; column: number } | null, message = ""): void {
    const doc = this.view.state.doc;
    if (!at || at.line > doc.lines) {
      this.view.dispatch(setDiagnostics(this.view.state, []));
      return;
    }
    const line = doc.line(at.line);
    const from = Math.min(line.from + at.column - 1, doc.length);
    const to = Math.min(Math.max(from + 1, from + (/^\w+/.exec(doc.sliceString(from, line.to))?.[0].length ?? 1)), doc.length);
    this.view.dispatch(setDiagnostics(this.view.state, [{ from: Math.min(from, to === from ? Math.max(0, from - 1) : from), to, severity: "error", message }]));
  }

  destroy(): void {
    this.view.destroy();
  }
}

// Where coloured text is typed over, Chromium keeps its colour by a style
// attribute, which the policy forbids and the console tells. So it is not left to
// the browser.
function replace(e: InputEvent, view: EditorView): boolean {
  const { from, to, empty } = view.state.selection.main;
  const text = e.data;
  if (empty || view.composing || e.inputType !== "insertText" || !text) return false;
  const insert = () => view.state.update(view.state.replaceSelection(text), { userEvent: "input.type", scrollIntoView: true });
  if (!view.state.facet(EditorView.inputHandler).some((handle) => handle(view, from, to, text, insert))) view.dispatch(insert());
  e.preventDefault();
  return true;
}

export const strategy = (range: Range): CompleteStrategy => newCompleteStrategy({ remote: new Names(range) });
