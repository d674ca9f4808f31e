(() => {
  const { all, colour, cut, data, draw, layout, narrow, plain } = weft;
  const CAUSES = data.causes;
  const MARKERS = { FF: "circle", BP: "square", WU: "triangle-up" };

  const stacked = (rows, names, unit, decimals) => names.map((cause, i) => ({
    type: "bar", orientation: "h", name: cause.name, marker: { color: colour(cause.key) },
    y: rows.map((_, n) => n), x: rows.map((row) => row.causes[i]),
    customdata: rows.map((row) => plain(row.label)),
    hovertemplate: `%{customdata}<br>${cause.name}: %{x:${decimals}} ${unit}<extra></extra>`,
  })).filter((trace) => trace.x.some((x) => x > 0));
  // Names stand beside the bars, or above them where there is no room beside.
  const above = (rows) => narrow() && rows.some((row) => row.label.length > 10);
  const rowLayout = (rows, more) => layout({
    barmode: "stack", bargap: above(rows) ? 0.55 : 0.25, ...more,
    yaxis: {
      tickvals: above(rows) ? [] : rows.map((_, n) => n), ticktext: rows.map((row) => cut(row.label)), ticklen: 4,
      tickcolor: "rgba(0,0,0,0)", showgrid: false, zeroline: false, range: [rows.length - 0.45, above(rows) ? -0.75 : -0.55],
    },
    annotations: !above(rows) ? [] : rows.map((row, n) => ({
      x: 0, y: n - 0.25, xanchor: "left", yanchor: "bottom", showarrow: false, text: cut(row.label), font: { size: 11 },
    })),
  });
  const bars = (rows, unit) => ({
    traces: stacked(rows, CAUSES, unit, ",.4~g"), layout: rowLayout(rows, { xaxis: { title: { text: unit } } }),
  });
  const rowHeight = (rows) => 90 + rows.length * (above(rows) ? 40 : 24);

  const ticks = (rows, key, name) => {
    const at = rows.map((row, n) => [row[key], n]).filter(([x]) => x !== null);
    return {
      shapes: at.map(([x, n]) => ({
        type: "line", x0: x, x1: x, y0: n - 0.46, y1: n + 0.46, line: { color: colour(name), width: 3 },
      })), largest: Math.max(0, ...at.map(([x]) => x)),
    };
  };

  // Bins side by side become one where a pixel would have to show several.
  const spread = (bins, end) => {
    const each = narrow() ? 3 : 1, count = bins / each;
    const sum = (values, from) => values.slice(from, from + each).reduce((a, b) => a + b, 0);
    return {
      x: Array.from({ length: count }, (_, i) => end * (i + 0.5) / count),
      means: (values) => Array.from({ length: count }, (_, i) => sum(values, each * i) / each),
    };
  };

  const opened = {};
  const open = (number, index) => {
    if (opened[number] !== undefined) return;
    const select = document.querySelector(`.open-layer[data-number="${number}"]`);
    select.value = String(index);
    select.dispatchEvent(new Event("change"));
  };
  all(".open-layer").forEach((select) => select.addEventListener("change", () => {
    const { number } = select.dataset;
    opened[number] = select.value === "" ? undefined : Number(select.value);
    draw(document.querySelector(`.plot[data-kind="layers"][data-number="${number}"]`));
  }));

  const chooser = document.getElementById("run");
  const choose = () => all("article.run").forEach((one) => { one.hidden = one.dataset.run !== chooser.value; });
  if (chooser) { chooser.addEventListener("change", choose); choose(); }

  weft.start({
    overview(n) {
      const { rows, unit } = data.overview[n];
      const made = bars(rows, unit);
      const marks = [ticks(rows, "promised", "ink"), ticks(rows, "overlapped", "muted")];
      made.layout.shapes = marks.flatMap((mark) => mark.shapes);
      const longest = Math.max(...rows.map((row) => row.causes.reduce((a, b) => a + b, 0)), ...marks.map((m) => m.largest));
      made.layout.xaxis.range = [0, 1.04 * longest];
      return made;
    },
    promise(n) {
      const { rows, unit, level } = data.promises[n];
      const made = rowLayout(rows, { xaxis: { title: { text: `${unit} of a step, ${level}` }, range: [0, (narrow() ? 1.5 : 1.22) * rows[0].to] } });
      made.margin = { ...made.margin, r: 8 };
      const lines = rows.slice(1).map((row, n) => ({
        type: "line", x0: rows[n].to, x1: rows[n].to, y0: n, y1: n + 1, layer: "below",
        line: { color: colour("muted"), width: 1 },
      }));
      const names = rows.map((row, n) => ({
        x: Math.max(row.from, row.to), y: n, xanchor: "left", xshift: 4, showarrow: false, text: plain(row.words),
        font: { size: 11 },
      }));
      made.shapes = lines;
      made.annotations = [...(made.annotations ?? []), ...names];
      const bar = {
        type: "bar", orientation: "h", y: rows.map((_, n) => n), base: rows.map((row) => Math.min(row.from, row.to)),
        x: rows.map((row) => Math.abs(row.to - row.from)),
        marker: { color: rows.map((row) => colour(row.whole ? "ink" : row.cause)) },
        customdata: rows.map((row) => [plain(row.label), plain(row.words), Math.abs(row.to - row.from)]),
        hovertemplate: `%{customdata[0]}<br>%{customdata[2]:,.4~g} ${unit}, %{customdata[1]}<extra></extra>`,
      };
      return { traces: [bar], layout: made, height: rowHeight(rows) };
    },
    passes(n) { return bars(data.runs[n].passes, data.runs[n].unit); },
    layers(n) {
      const { layers, unit } = data.runs[n];
      const rows = opened[n] === undefined ? layers : layers[opened[n]].parts;
      return { ...bars(rows, unit), height: rowHeight(rows), clicked: (event) => open(n, event.points[0].y) };
    },
    roofline(n) {
      const { peak, sparse, slope, points } = data.runs[n].roofline;
      const xs = points.map((p) => p.x);
      const low = Math.min(...xs, peak / slope) / 2, high = Math.max(...xs, sparse / slope) * 2;
      const largest = Math.max(...points.map((p) => p.share));
      const roof = (top) => [[low, top / slope, high], [low * slope, top, top]];
      const line = (top, dash, text) => ({
        type: "scatter", mode: "lines", x: roof(top)[0], y: roof(top)[1], hoverinfo: "skip",
        line: { color: colour("muted"), width: 1.5, dash }, name: text,
      });
      const label = (y, text) => ({
        x: Math.log10(y / slope), y: Math.log10(y), yanchor: "bottom", showarrow: false, text,
        xanchor: (y / slope) ** 2 > low * high ? "right" : "left",
        font: { color: colour("muted"), size: 11 },
      });
      const lines = [line(peak, "solid", "dense")];
      const labels = [label(peak, `dense peak ${peak.toFixed(1)} GMAC/s`)];
      if (sparse > peak * 1.001) {
        lines.push(line(sparse, "dot", "sparse"));
        labels.push(label(sparse, `sparse peak ${sparse.toFixed(1)} GMAC/s, DRAM ${slope.toFixed(1)} GB/s`));
      }
      // What lies behind shines through, the large ones behind the small; names stand in turns above and below.
      const hues = points.map((p) => colour(p.pass.toLowerCase()));
      const sides = points.filter((p) => p.named).sort((p, q) => p.x - q.x);
      const dots = {
        type: "scatter", mode: "markers+text", x: xs, y: points.map((p) => p.y),
        marker: {
          symbol: points.map((p) => MARKERS[p.pass]), opacity: 1, color: hues.map((hue) => `${hue}40`),
          size: points.map((p) => 6 + 20 * Math.sqrt(p.share / largest)), line: { width: 1.5, color: hues },
        },
        text: points.map((p) => (p.named ? `${plain(p.short)} ${p.pass}` : "")), textfont: { size: 10 },
        textposition: points.map((p) => (sides.indexOf(p) % 2 ? "top center" : "bottom center")),
        customdata: points.map((p) => [
          `${plain(p.name)}<br>${p.ops === 1 ? "one op" : `${p.ops} ops`}, ${p.pass}, ${plain(p.mapping)}`,
          `${(100 * p.roof).toFixed(0)} % of its roof, bound by ${p.memory ? "DRAM" : "the array"}`,
        ]),
        hovertemplate: "%{customdata[0]}<br>%{x:.4~g} MAC/byte, %{y:.4~g} GMAC/s, %{customdata[1]}<extra></extra>",
      };
      const decades = (a, b) => Array.from({ length: 40 }, (_, i) => i - 15).flatMap((e) => {
        const steps = Math.log10(b / a) > (narrow() ? 2 : 4) ? [1] : [1, 2, 5];
        return steps.map((digit) => digit * 10 ** e);
      }).filter((tick) => tick >= a && tick <= b);
      const log = (a, b, text) => ({
        type: "log", range: [Math.log10(a), Math.log10(b)], title: { text }, tickvals: decades(a, b),
        ticktext: decades(a, b).map((tick) => String(Number(tick.toPrecision(3)))),
      });
      const ys = points.map((p) => p.y);
      const bottom = Math.min(...ys, peak) / 2.2, top = Math.max(...ys, sparse) * 1.4;
      return {
        traces: [...lines, dots],
        layout: layout({
          annotations: labels, hovermode: "closest",
          xaxis: log(low, high, "MAC per byte of DRAM"), yaxis: log(bottom, top, "GMAC/s"),
        }),
      };
    },
    energy(n) {
      const { parts, rows, unit } = data.runs[n].energy;
      const range = [0, 1.03 * Math.max(...rows.map((row) => row.band[2]))];
      // Below the bar, whose dark parts would hide it.
      const bands = {
        type: "scatter", mode: "markers", marker: { opacity: 0 }, x: rows.map((row) => row.band[1]), y: rows.map((_, n) => n + 0.43),
        error_x: { type: "data", symmetric: false, array: rows.map((row) => row.band[2] - row.band[1]),
          arrayminus: rows.map((row) => row.band[1] - row.band[0]), color: colour("ink"), thickness: 1.5, width: 3 },
        customdata: rows.map((row) => row.band),
        hovertemplate: `%{customdata[1]:,.4~g} ${unit}, from %{customdata[0]:,.3~g} to %{customdata[2]:,.3~g}<extra></extra>`,
      };
      const layout = rowLayout(rows, { xaxis: { title: { text: `${unit}; lines: from the least to the most` }, range } });
      return { traces: [...stacked(rows, parts, unit, ",.4~g"), bands], layout };
    },
    bandwidth(n) {
      const { moved, unit, end, bins, peak } = data.runs[n].dram;
      const { x, means } = spread(bins, end);
      const line = {
        type: "scatter", mode: "lines", x: [0, end], y: [peak, peak], hoverinfo: "skip",
        line: { color: colour("muted"), width: 1.5, dash: "dot" },
      };
      const areas = moved.map((one) => ({
        type: "scatter", mode: "lines", stackgroup: "moved", name: one.label, x, y: means(one.gb),
        line: { width: 0, color: colour(one.colour), shape: "hvh" }, fillcolor: colour(one.colour),
        hovertemplate: `%{x:.4~g} ${unit}<br>${one.label}: %{y:.3~g} GB/s<extra></extra>`,
      }));
      const note = {
        x: end, y: peak, xanchor: "right", yanchor: "bottom", showarrow: false, text: `peak ${peak.toPrecision(3)} GB/s`,
        font: { color: colour("muted"), size: 11 },
      };
      return {
        traces: [...areas, line],
        layout: layout({
          annotations: [note],
          xaxis: { title: { text: unit }, range: [0, end] },
          yaxis: { title: { text: "GB/s" }, range: [0, 1.15 * peak] },
        }),
      };
    },
    buffers(n) {
      const { buffers, unit, end, bins } = data.runs[n].system;
      const { x, means } = spread(bins, end);
      const made = layout({
        grid: { rows: buffers.length, columns: 1, pattern: "coupled", roworder: "top to bottom", ygap: 0.25 },
        xaxis: { title: { text: unit }, range: [0, end] },
      });
      buffers.forEach((one, i) => {
        made[i ? `yaxis${i + 1}` : "yaxis"] = {
          ...made.yaxis, range: [0, 2.05], tickvals: [0, 1, 2], title: { text: one.label },
        };
      });
      const traces = buffers.map((one, i) => ({
        type: "scatter", mode: "lines", x, y: means(one.halves), yaxis: i ? `y${i + 1}` : "y", fill: "tozeroy",
        line: { width: 1, color: colour("port_stall"), shape: "hvh" }, fillcolor: colour("port_stall"), name: one.label,
        hovertemplate: `%{x:.4~g} ${unit}<br>${one.label}: %{y:.2f} halves<extra></extra>`,
      }));
      return { traces, layout: made };
    },
    engines(n) {
      const { engines, waits } = data.runs[n].system;
      const rows = engines.map((one) => ({ label: one.label, causes: one.shares }));
      const names = waits.map((wait) => ({ key: wait.colour, name: wait.label }));
      return {
        traces: stacked(rows, names, "%", ".1f"),
        layout: rowLayout(rows, { xaxis: { title: { text: "% of the step" }, range: [0, 100.5] } }),
      };
    },
    accuracy(n) {
      const { target, points } = data.study[n];
      // Names that would run into their neighbour's go below their point, above, and so on in turns.
      const reach = Math.max(...points.map((p) => p.x)) - Math.min(...points.map((p) => p.x));
      const place = new Map();
      points.filter((p) => p.named).sort((p, q) => p.x - q.x).forEach((p, i, row) => {
        const close = i > 0 && p.x - row[i - 1].x < 0.12 * reach;
        place.set(p, close && place.get(row[i - 1]).startsWith("top") ? "bottom center" : "top center");
      });
      const dots = {
        type: "scatter", mode: "markers+text", x: points.map((p) => p.x), y: points.map((p) => p.y),
        error_y: { type: "data", symmetric: false, array: points.map((p) => Math.min(p.sd, 100 - p.y)),
          arrayminus: points.map((p) => p.sd), color: colour("muted"), thickness: 1, width: 2 },
        marker: { size: 10, color: points.map((p) => colour(p.reached ? "compute" : "dram_stall")),
          symbol: points.map((p) => (p.reached ? "circle" : "diamond")) },
        text: points.map((p) => (p.named ? plain(p.label) : "")), textposition: points.map((p) => place.get(p) ?? "top center"),
        customdata: points.map((p) => plain(p.label)),
        hovertemplate: "%{customdata}<br>%{x:.2f} times as fast a step, %{y:.2f} %<extra></extra>",
      };
      const shapes = target === null ? [] : [{
        type: "line", xref: "paper", x0: 0, x1: 1, y0: target, y1: target,
        line: { color: colour("muted"), width: 1.5, dash: "dot" },
      }];
      return {
        traces: [dots],
        layout: layout({
          shapes, hovermode: "closest", xaxis: { title: { text: "times as fast as dense, a step" } },
          yaxis: { title: { text: "test accuracy, %" } },
        }),
      };
    },
  });
})();
