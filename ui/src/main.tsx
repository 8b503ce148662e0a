import { render } from "preact";
import { AssetView } from "./asset";
import { Header, Problems } from "./header";
import { startLive } from "./live";
import { startBeat } from "./plant";
import { route } from "./route";
import { Stations } from "./stations";
import { linkState, startStore } from "./store";
import { Tree } from "./tree";
import "uplot/dist/uPlot.min.css";
import "./style.css";

function App() {
  return (
    <div class={`page ${route.value.asset ? "shows-asset" : "shows-tree"} ${linkState.value === "lost" ? "is-lost" : ""}`}>
      <a class="skip" href="#asset" onClick={skip}>Skip to the asset</a>
      <Header />
      <Problems />
      <main>
        <Tree />
        <AssetView />
      </main>
      <Stations />
    </div>
  );
}

// The address holds the selection, so the jump is made by hand.
function skip(e: Event): void {
  e.preventDefault();
  const asset = document.getElementById("asset");
  asset?.setAttribute("tabindex", "-1");
  asset?.focus();
}

startBeat();
startStore();
startLive();
render(<App />, document.getElementById("app")!);
