(() => {
  const { all, colour, cut, data, draw, layout, narrow, plain } = weft;
  const { objectives, front } = data;
  const STATUSES = { runs: "compute", "left out": "vector", refused: "dram_stall" };
  const SHARES = ["compute", "interleave_stall", "wuve", "sore", "fill_drain", "port_stall"];
  const STRENGTHS = 4; // of lines between axes: more would look alike
  const at = (id) => document.getElementById(id);
  const plot = (kind) => all(`.plot[data-kind="${kind}"]`);
  let chosen = null;

  const faint = (name, alpha) => {
    const [r, g, b] = colour(name).match(/[0-9a-f]{2}/gi).map((two) => parseInt(two, 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };
  const ramp = (name) => [[0, faint(name, 0.14)], [1, faint(name, 1)]];

  // Bins as a heat map: row after row of the first index; the logarithm of how many are in each.
  const heat = ({ at: bins, n }, x, y, name, turned, said) => {
    const z = Array.from({ length: y.length - 1 }, () => Array(x.length - 1).fill(null));
    const counts = z.map((row) => [...row]);
    const wide = turned ? x.length - 1 : y.length - 1;
    bins.forEach((bin, i) => {
      const first = Math.floor(bin / wide), second = bin % wide;
      const [column, row] = turned ? [second, first] : [first, second];
      z[row][column] = Math.log10(n[i]);
      counts[row][column] = n[i];
    });
    return {
      type: "heatmap", x, y, z, customdata: counts, colorscale: ramp(name), showscale: false, zmin: -0.3,
      zmax: Math.max(1, Math.log10(Math.max(1, ...n))), hovertemplate: `%{customdata:,} ${said}<extra></extra>`,
    };
  };
  const span = ({ edges, log }) => {
    const ends = [edges[0], edges.at(-1)].map((x) => (log ? Math.log10(x) : x));
    const room = 0.03 * (ends[1] - ends[0]);
    return [ends[0] - room, ends[1] + room];
  };
  const axis = (one) => ({
    title: { text: one.label }, type: one.log ? "log" : "linear", range: span(one), tickformat: "~s", zeroline: false,
    ...(one.log ? { dtick: span(one)[1] - span(one)[0] > 1.5 ? 1 : "D2" } : {}),
  });
  const ends = (one) => span(one).map((x) => (one.log ? 10 ** x : x));
  const better = (one) => ends(one)[one.sign > 0 ? 0 : 1];
  const worse = (one) => ends(one)[one.sign > 0 ? 1 : 0];

  // A front goes from corner to corner: across first, for what is as good in one and worse in the other is behind it.
  const stairs = (x, y, corners) => {
    const made = corners.map(({ x: across, y: up }) => [across, up]).sort((p, q) => x.sign * (p[0] - q[0]));
    const line = [[made[0][0], worse(y)]];
    made.forEach((corner, i) => { line.push(corner, [i + 1 < made.length ? made[i + 1][0] : worse(x), corner[1]]); });
    return line;
  };
  const corners = ({ x, y }, turned) => x.map((_, i) => (turned ? { x: y[i], y: x[i] } : { x: x[i], y: y[i] }));

  const words = (row) => {
    const { point, axes } = front.details[row];
    return [`point ${point}`, ...axes.map(([name, value]) => `${plain(name)} ${plain(value)}`)].join("<br>");
  };
  const make = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    parent?.append(made);
    return made;
  };
  const choose = (row) => {
    chosen = row;
    const panel = at("point");
    if (!panel) return;
    const { point, axes, numbers, reason } = front.details[row];
    panel.replaceChildren();
    make("h3", `Point ${point}`, panel);
    if (reason) make("p", reason, panel);
    [axes, numbers].forEach((entries) => {
      const list = make("dl", undefined, panel);
      entries.forEach(([name, value]) => {
        const pair = make("div", undefined, list);
        make("dt", name, pair);
        make("dd", value, pair);
      });
    });
    const way = make("p", front.reports[row] ? "Its full report: " : "Its machine and its full report: ", panel);
    if (front.reports[row]) {
      const link = make("a", `report of point ${point}`, way);
      link.href = front.reports[row];
    } else {
      make("code", `weft explore report ${front.place} ${point}`, way);
    }
    all("#front-rows tbody tr").forEach((one) => one.classList.toggle("chosen", one.dataset.row === String(row)));
    [...plot("front"), ...plot("parallel")].forEach((one) => draw(one));
  };
  const clicked = (event) => {
    const mark = event.points.find((p) => Number.isInteger(p.data.customdata?.[p.pointNumber]) && p.data.meta === "front");
    if (mark) choose(mark.data.customdata[mark.pointNumber]);
  };
  if (front) {
    // A point of the table is chosen by its number, which is its row's head.
    all("#front-rows tbody tr").forEach((line, row) => {
      line.dataset.row = row;
      const head = line.querySelector("th"), button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => { choose(row); at("point")?.scrollIntoView({ block: "nearest" }); });
    });
  }

  const across = at("across"), up = at("up"), sliced = at("sliced");
  const menus = [across, up];
  menus.forEach((menu, i) => menu?.addEventListener("change", () => {
    const other = menus[1 - i];
    // The same twice has no front: the other one makes room.
    if (other.value === menu.value) other.value = String(was[i]);
    was = menus.map((one) => Number(one.value));
    plot("front").forEach((one) => draw(one));
  }));
  let was = menus.map((one) => Number(one?.value));
  sliced?.addEventListener("change", () => plot("slice").forEach((one) => draw(one)));

  const bars = (rows, most) => ({
    layout: layout({
      bargap: 0.3, barmode: "group",
      xaxis: { title: { text: "%" }, range: [0, most] },
      yaxis: {
        tickvals: rows.map((_, n) => n), ticktext: rows.map((row) => cut(row.label, narrow() ? 18 : 40)), ticklen: 4,
        tickcolor: "rgba(0,0,0,0)", showgrid: false, zeroline: false, range: [rows.length - 0.45, -0.55],
      },
    }),
  });

  weft.start({
    front() {
      const [i, j] = [Number(across.value), Number(up.value)];
      const pair = data.pairs.find((one) => one.x === Math.min(i, j) && one.y === Math.max(i, j));
      const [x, y, turned] = [objectives[i], objectives[j], i > j];
      const traces = [];
      if (pair.bound) {
        const edge = stairs(x, y, corners(pair.bound, turned));
        const shape = [...edge, [worse(x), better(y)], [better(x), better(y)], [better(x), worse(y)]];
        traces.push({
          type: "scatter", mode: "lines", x: shape.map((p) => p[0]), y: shape.map((p) => p[1]), fill: "toself",
          hoverinfo: "skip", line: { width: 0 }, fillcolor: faint("muted", 0.06),
          fillpattern: { shape: "/", size: 7, solidity: 0.18, fgcolor: faint("muted", 0.55), bgcolor: faint("muted", 0.06) },
        });
      }
      at("bound-said").textContent = pair.why ? `No region is ruled out: ${pair.why}.` : "";
      if (pair.left.n.length) traces.push(heat(pair.left, x.edges, y.edges, "muted", turned, "left out"));
      if (pair.runs.n.length) traces.push(heat(pair.runs, x.edges, y.edges, "compute", turned, "scheduled"));
      if (pair.front.x.length) {
        const line = stairs(x, y, corners(pair.front, turned));
        traces.push({
          type: "scatter", mode: "lines", x: line.map((p) => p[0]), y: line.map((p) => p[1]), hoverinfo: "skip",
          line: { color: colour("dram_stall"), width: 2 },
        });
      }
      if (front) {
        const xs = front.values[i], ys = front.values[j];
        traces.push({
          type: "scatter", mode: "markers", meta: "front", x: xs, y: ys, customdata: xs.map((_, row) => row),
          text: xs.map((_, row) => words(row)),
          hovertemplate: "%{text}<br>%{x:.6~g}, %{y:.6~g}<extra></extra>",
          marker: {
            size: xs.map((_, row) => (row === chosen ? 14 : 7)), color: colour("dram_stall"),
            line: { width: xs.map((_, row) => (row === chosen ? 2.5 : 1)), color: xs.map((_, row) => colour(row === chosen ? "ink" : "ground")) },
          },
        });
      }
      return { traces, clicked, layout: layout({ hovermode: "closest", xaxis: axis(x), yaxis: axis(y) }) };
    },
    parallel() {
      const { columns, links } = data;
      const count = columns.length;
      const traces = Array.from({ length: STRENGTHS }, (_, i) => ({
        type: "scatter", mode: "lines", x: [], y: [], hoverinfo: "skip",
        line: { width: 0.8 + 0.6 * i, color: faint("compute", 0.06 + 0.6 * (i / (STRENGTHS - 1)) ** 1.5) },
      }));
      links.forEach(({ at: bins, n }, gap) => {
        const left = columns[gap].middles, right = columns[gap + 1].middles;
        const most = Math.sqrt(Math.max(...n));
        bins.forEach((bin, i) => {
          const strength = Math.min(STRENGTHS - 1, Math.floor(STRENGTHS * Math.sqrt(n[i]) / most));
          const { x, y } = traces[strength];
          x.push(gap, gap + 1, null);
          y.push(left[Math.floor(bin / right.length)], right[bin % right.length], null);
        });
      });
      if (front) {
        const way = (rows) => ({
          x: rows.flatMap(() => [...columns.keys(), null]), y: rows.flatMap((row) => [...front.places.map((of) => of[row]), null]),
          customdata: rows.flatMap((row) => [...columns.map(() => row), null]),
          text: rows.flatMap((row) => [...columns.map(() => words(row)), null]),
        });
        const rows = front.details.map((_, row) => row);
        const line = { type: "scatter", mode: "lines+markers", meta: "front", hovertemplate: "%{text}<extra></extra>" };
        traces.push({
          ...line, ...way(rows), line: { color: faint("dram_stall", rows.length > 60 ? 0.3 : rows.length > 15 ? 0.5 : 0.85), width: 1.2 },
          marker: { size: 5, color: faint("dram_stall", 0.6) },
        });
        if (chosen !== null) {
          traces.push({ ...line, ...way([chosen]), line: { color: colour("ink"), width: 3 }, marker: { size: 8, color: colour("ink") } });
        }
      }
      const texts = columns.flatMap(({ ticks }, i) => ticks.map(([y, text]) => ({
        x: i, y, text: cut(text, 12), showarrow: false, xanchor: "left", xshift: 5, font: { size: 10 },
        bgcolor: faint("ground", 0.75), borderpad: 1,
      })));
      const heads = columns.map(({ label, objective }, i) => ({
        x: i, y: 1, yref: "paper", yanchor: "bottom", yshift: 6, showarrow: false, font: { size: 11 },
        text: (objective ? "<b>" : "") + plain(label).replace(/([._ ])/g, "$1<br>").replace(/<br>$/, "") + (objective ? "</b>" : ""),
      }));
      const posts = columns.map((_, i) => ({
        type: "line", x0: i, x1: i, y0: 0, y1: 1, line: { color: colour("muted"), width: 1.5 },
      }));
      return {
        traces, clicked,
        layout: layout({
          annotations: [...texts, ...heads], shapes: posts, hovermode: "closest",
          margin: { l: 40, r: 70, t: 70, b: 8 },
          xaxis: { range: [0, count - 1], visible: false, automargin: false },
          yaxis: { range: [-0.01, 1.01], visible: false, automargin: false },
        }),
      };
    },
    importances() {
      const { objectives: names, rows } = data.importances;
      const made = bars(rows, 102 * Math.max(...rows.flatMap((row) => row.shares)));
      const traces = names.map((name, i) => ({
        type: "bar", orientation: "h", y: rows.map((_, n) => n), x: rows.map((row) => 100 * row.shares[i]),
        marker: { color: colour(SHARES[i % SHARES.length]) }, customdata: rows.map((row) => plain(row.label)),
        hovertemplate: `%{customdata}: %{x:.1f} % of ${plain(name)}<extra></extra>`,
      }));
      return { traces, ...made };
    },
    slice(n) {
      const one = data.slices[n], y = objectives[Number(sliced.value)], counts = one.of[Number(sliced.value)];
      const worded = one.values.length > 0;
      const edges = worded ? [...one.values.keys(), one.values.length].map((i) => i - 0.5) : one.edges;
      const middle = worded ? [...one.values.keys()]
        : one.edges.slice(1).map((high, i) => (one.log ? Math.sqrt(high * one.edges[i]) : (high + one.edges[i]) / 2));
      const step = Math.ceil(one.values.length / (narrow() ? 5 : 8));
      const shown = one.values.map((text, i) => [i, text]).filter(([i]) => i % step === 0);
      const x = worded
        ? { tickvals: shown.map(([i]) => i), ticktext: shown.map(([, text]) => cut(text, 12)), range: [-0.5, one.values.length - 0.5] }
        : { type: one.log ? "log" : "linear", range: span(one), tickformat: "~s" };
      const best = {
        type: "scatter", mode: "lines+markers", x: middle, y: counts.best, line: { color: colour("dram_stall"), width: 2 },
        marker: { size: 6, color: colour("dram_stall") },
        customdata: worded ? one.values.map((text) => plain(text)) : middle.map((v) => v.toPrecision(3)),
        hovertemplate: `${plain(one.label)} %{customdata}: %{y:.6~g}<extra></extra>`,
      };
      const traces = [...(counts.n.length ? [heat(counts, edges, y.edges, "compute", false, "scheduled")] : []), best];
      return {
        traces, layout: layout({ hovermode: "closest", xaxis: { ...x, showgrid: false, zeroline: false }, yaxis: axis(y) }),
      };
    },
    statuses() {
      const every = data.statuses.reduce((sum, one) => sum + one.points, 0);
      const traces = data.statuses.map((one) => ({
        type: "bar", orientation: "h", y: [0], x: [100 * one.points / every], name: plain(one.label),
        marker: { color: colour(STATUSES[one.label] ?? "other") }, customdata: [one.points],
        hovertemplate: `${plain(one.label)}: %{customdata:,}, %{x:.1f} %<extra></extra>`,
      }));
      return {
        traces, layout: layout({ barmode: "stack", bargap: 0.1, yaxis: { visible: false }, xaxis: { title: { text: "%" }, range: [0, 100.4] } }),
      };
    },
    refused() {
      const every = data.statuses.reduce((sum, one) => sum + one.points, 0);
      const rows = data.refused;
      const shares = rows.map((row) => 100 * row.points / every);
      return {
        traces: [{
          type: "bar", orientation: "h", y: rows.map((_, n) => n), x: shares, marker: { color: colour("dram_stall") },
          customdata: rows.map((row) => [plain(row.label), row.points]),
          hovertemplate: "%{customdata[0]}: %{customdata[1]:,}, %{x:.2f} %<extra></extra>",
        }],
        ...bars(rows, 1.05 * Math.max(...shares)),
      };
    },
  });
  if (front?.details.length) choose(0);
})();
