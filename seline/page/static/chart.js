"use strict";
// Draws with uPlot how the volume filled. The table beside it has the same figures.
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const { times, lines, unit } = JSON.parse(figure.dataset.chart);
  const place = figure.firstElementChild;
  const language = document.documentElement.lang;
  const isLong = times[times.length - 1] - times[0] > 2 * 86400;
  const moment = new Intl.DateTimeFormat(
    language,
    isLong ? { day: "numeric", month: "short" } : { hour: "numeric", minute: "2-digit" },
  );
  const dated = (second) => moment.format(second * 1000);
  const sized = (value) => `${value.toLocaleString(language)} ${unit}`;
  const colour = (name) => () => getComputedStyle(figure).getPropertyValue(name).trim();
  const size = () => ({ width: place.clientWidth, height: 200 });
  const axis = {
    font: "12px system-ui, sans-serif",
    stroke: colour("--note"),
    grid: { stroke: colour("--pico-muted-border-color"), width: 1 },
    ticks: { show: false },
  };
  figure.hidden = false;
  const chart = new uPlot(
    {
      ...size(),
      cursor: { show: false },
      legend: { show: false },
      scales: { y: { range: (_chart, _low, high) => [0, high * 1.05 || 1] } },
      axes: [
        { ...axis, space: 70, size: 28, values: (_chart, at) => at.map(dated) },
        { ...axis, size: 72, values: (_chart, at) => at.map(sized) },
      ],
      series: [
        {},
        { stroke: colour("--pico-primary"), width: 2, points: { show: false } },
        { stroke: colour("--pico-primary"), width: 2, dash: [6, 5], points: { show: false } },
        { stroke: colour("--bad"), width: 1.5, points: { show: false } },
      ],
    },
    [times, ...lines],
    place,
  );
  new ResizeObserver(() => chart.setSize(size())).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.redraw());
}
