import "uplot/dist/uPlot.min.css";
import "./fonts.css";
import "./style.css";
import "./views.css";
import { render } from "preact";
import { get, type Dumps } from "./api";
import { App } from "./app";
import { Store, StoreContext } from "./state";

const root = document.getElementById("app")!;

async function main(): Promise<void> {
  // A canvas draws at once, and with what fonts there are.
  const fonts = Promise.race([Promise.all(["13px 'IBM Plex Sans Variable'", "11px 'IBM Plex Mono'"].map((f) => document.fonts.load(f))), new Promise((r) => setTimeout(r, 500))]);
  const [dumps] = await Promise.all([get<Dumps>("api/promdump/v1/dumps"), fonts]);
  const store = new Store(dumps);
  render(
    <StoreContext.Provider value={store}>
      <App />
    </StoreContext.Provider>,
    root,
  );
}

main().catch((e: Error) => {
  render(<div class="failure" role="alert"><p><b>The dump could not be read.</b> {e.message}</p></div>, root);
});
