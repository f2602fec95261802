// Tabs as the ARIA Authoring Practices have them: arrows choose, Tab leads into the panel.

import { fresh, h } from "./dom.js";

/**
 * @param {HTMLElement} list with role "tablist"
 * @param {HTMLElement} panels where the panels go
 * @param {{key: string, title: string}[]} items
 * @param {(key: string) => void} chosen
 */
export function makeTabs(list, panels, items, chosen) {
  const tabs = items.map(({ key, title }) => {
    const [tabId, panelId] = [fresh("tab"), fresh("panel")];
    const panel = h("section", { role: "tabpanel", id: panelId, "aria-labelledby": tabId, tabindex: 0,
      class: `panel ${key}`, hidden: true });
    const tab = h("button", { type: "button", role: "tab", id: tabId, "aria-controls": panelId,
      tabindex: -1, "aria-selected": "false", onclick: () => chosen(key) }, title);
    return { key, tab, panel };
  });
  list.append(...tabs.map(({ tab }) => tab));
  panels.append(...tabs.map(({ panel }) => panel));

  list.addEventListener("keydown", (event) => {
    const seen = tabs.filter(({ tab }) => !tab.hidden);
    const at = seen.findIndex(({ tab }) => tab === document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: seen.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = seen[(to + seen.length) % seen.length];
    next.tab.focus();
    chosen(next.key);
  });

  return {
    panel: (key) => tabs.find((one) => one.key === key)?.panel,
    /** Which can be chosen. */
    offer(keys) {
      for (const { key, tab } of tabs) tab.hidden = !keys.includes(key);
    },
    choose(key) {
      for (const { key: other, tab, panel } of tabs) {
        tab.setAttribute("aria-selected", String(other === key));
        tab.tabIndex = other === key ? 0 : -1;
        panel.hidden = other !== key;
      }
    },
  };
}
