// Runs before anything is drawn, so that the page does not flash in the other colors.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("moreish.theme") ?? `""`);
} catch {
  // Without storage, the page has the colors of the system.
}
