// Before anything is drawn, so that the page does not flash in the other colours.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("moreish.theme") ?? `""`);
} catch {
  // Storage is switched off: the system's colours will do.
}
