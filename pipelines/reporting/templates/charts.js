// Draws every chart into its place; colours of text, axes and grid are the page's own (report.css).
const dark = window.matchMedia("(prefers-color-scheme: dark)");
document.querySelectorAll(".chart").forEach((place) => {
  vegaEmbed(place, JSON.parse(place.dataset.spec), {
    renderer: "svg", actions: false, tooltip: { theme: dark.matches ? "dark" : "light" },
  }).then(() => { place.dataset.drawn = "yes"; });
});
