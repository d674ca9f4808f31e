"use strict";
// What every page does: colours, charts that are drawn when they are seen, long tables, Plotly out of its packing.
const weft = (() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const data = JSON.parse(document.getElementById("data").textContent);
  const SHOWN = 100; // rows of a long table until more are asked for
  root.classList.add("script");

  // Theme: the system's until somebody chooses.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("weft-theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  if (remembered()) root.dataset.theme = remembered();
  const showTheme = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; redraw(); };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("weft-theme", root.dataset.theme); } catch { /* no storage: forget */ }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name.replaceAll("_", "-")).trim();

  // Plotly reads a little HTML in its texts; names are text.
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const narrow = () => innerWidth < 640;
  const cut = (text, most = narrow() ? 44 : 40) => plain(text.length > most ? "…" + text.slice(1 - most) : text);

  const layout = (more) => {
    const axis = { gridcolor: colour("grid"), zerolinecolor: colour("grid"), fixedrange: true, automargin: true };
    const { xaxis, yaxis, ...rest } = more;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
      font: { color: colour("ink"), size: narrow() ? 11 : 12, family: "system-ui, sans-serif" },
      margin: { l: 8, r: narrow() ? 12 : 24, t: 8, b: 8 }, hoverlabel: { align: "left" },
      xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
    };
  };

  // Charts are drawn when they come near the screen.
  const drawn = new Set();
  const draw = (plot) => {
    if (!window.Plotly || !plot.offsetParent) return;
    const { kind, number } = plot.dataset;
    const { traces, layout: made, height, clicked } = DRAW[kind](Number(number));
    if (height) plot.style.height = `${height}px`;
    Plotly.react(plot, traces, made, { displayModeBar: false, responsive: true });
    if (clicked && !drawn.has(plot)) plot.on("plotly_click", clicked);
    drawn.add(plot);
  };
  const redraw = () => drawn.forEach(draw);
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
  }), { rootMargin: "400px" });
  const plots = all(".plot");
  addEventListener("beforeprint", () => plots.forEach(draw));
  let was = narrow();
  addEventListener("resize", () => { if (narrow() !== was) { was = narrow(); redraw(); } });

  // Long tables: sorted by a button in each head, filtered by words, the first rows until all are asked for.
  const value = (cell) => {
    const text = cell.textContent.trim();
    const number = Number(text.replaceAll(",", ""));
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  };
  all(".sortable").forEach((place) => {
    const body = place.querySelector("tbody"), rows = [...body.rows];
    const filter = place.querySelector(".filter"), shown = place.querySelector(".shown"), more = place.querySelector(".more");
    const words = (row) => [...row.cells].slice(0, Number(place.dataset.words)).map((cell) => cell.textContent);
    const texts = new Map(rows.map((row) => [row, words(row).join(" ").toLowerCase()]));
    let order = rows, whole = rows.length <= SHOWN;
    const show = () => {
      const asked = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const fit = order.filter((row) => asked.every((word) => texts.get(row).includes(word)));
      const kept = new Set(whole ? fit : fit.slice(0, SHOWN));
      rows.forEach((row) => row.classList.toggle("out", !kept.has(row)));
      const few = kept.size < fit.length ? `, ${kept.size} shown` : "";
      shown.textContent = `${fit.length} of ${rows.length} ${place.dataset.noun}${few}`;
      more.hidden = kept.size === fit.length;
    };
    filter.addEventListener("input", show);
    more.addEventListener("click", () => { whole = true; show(); filter.focus(); });
    all("thead th", place).forEach((head, column) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.textContent = head.textContent;
      head.replaceChildren(sorter);
      sorter.addEventListener("click", () => {
        // Numbers are of most interest where they are large.
        const first = head.classList.contains("n") ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const way = head.getAttribute("aria-sort") === first ? other : first;
        all("thead th", place).forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", way);
        const sign = way === "ascending" ? 1 : -1;
        const keys = new Map(rows.map((row) => [row, value(row.cells[column])]));
        order = [...rows].sort((a, b) => compare(keys.get(a), keys.get(b), sign));
        body.append(...order);
        show();
      });
    });
    show();
  });

  // Plotly travels packed.
  const unpack = async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    plots.forEach((plot) => near.observe(plot));
  };
  let DRAW = {};
  // How each kind of chart is drawn: of a number, to traces, layout, height in pixels if another, what a click does.
  const start = (kinds) => {
    DRAW = kinds;
    showTheme();
    unpack().catch(() => plots.forEach((plot) => {
      plot.style.height = "auto";
      plot.textContent = "This browser cannot draw the chart; its figures are in the tables.";
    }));
  };
  return { all, colour, cut, data, draw, layout, narrow, plain, redraw, start };
})();
