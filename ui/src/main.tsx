import { render } from "preact";
import { AssetView } from "./asset";
import { Maintenance, startMaintenance } from "./maintenance";
import { Header, Problems } from "./header";
import { startLive } from "./live";
import { startBeat } from "./plant";
import { planning, route } from "./route";
import { Stations } from "./stations";
import { linkState, startStore } from "./store";
import { Tree } from "./tree";
import "uplot/dist/uPlot.min.css";
import "./style.css";

function App() {
  return (
    <div class={`page ${planning.value ? "shows-asset" : route.value.asset ? "shows-asset" : "shows-tree"} ${linkState.value === "lost" ? "is-lost" : ""}`}>
      <a class="skip" href="#asset" onClick={skip}>Skip to the asset</a>
      <Header />
      <Problems />
      <main>
        <Tree />
        {planning.value ? <Maintenance /> : <AssetView />}
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
startMaintenance();
render(<App />, document.getElementById("app")!);
