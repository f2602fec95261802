// Tabs after the ARIA Authoring Practices: the arrow keys choose a tab, and Tab moves into its panel.

import { button, h, keepFocus, uniqueId } from "./dom.js";

/** Adds tabs to an element with the role "tablist", and panels to another; `make` fills the panel of an item. */
export function makeTabs(list, panels, items, onChoose) {
  const tabs = items.map(({ key, title, make }) => {
    const [tabId, panelId] = [uniqueId("tab"), uniqueId("panel")];
    const panel = h("section", { role: "tabpanel", id: panelId, "aria-labelledby": tabId, tabindex: 0,
      class: `panel ${key}`, hidden: true });
    const tab = button(title, () => onChoose(key), { role: "tab", id: tabId, "aria-controls": panelId,
      tabindex: -1, "aria-selected": "false" });
    return { key, tab, panel, view: make(panel) };
  });
  list.append(...tabs.map(({ tab }) => tab));
  panels.append(...tabs.map(({ panel }) => panel));

  list.addEventListener("keydown", (event) => {
    const visible = tabs.filter(({ tab }) => !tab.hidden);
    const at = visible.findIndex(({ tab }) => tab === document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: visible.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = visible[(to + visible.length) % visible.length];
    next.tab.focus();
    onChoose(next.key);
  });

  return {
    /** The results of `make` by key. */
    views: Object.fromEntries(tabs.map(({ key, view }) => [key, view])),
    /** Shows the available tabs and the panel of one of them, which gets the focus of a panel that is hidden. */
    show(chosen, available) {
      const select = () => tabs.forEach(({ key, tab, panel }) => {
        tab.hidden = !available.includes(key);
        tab.setAttribute("aria-selected", String(key === chosen));
        tab.tabIndex = key === chosen ? 0 : -1;
        panel.hidden = key !== chosen;
      });
      keepFocus(select, tabs.find(({ key }) => key === chosen)?.tab);
    },
  };
}
