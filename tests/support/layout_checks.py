"""Checks of the layout of a page."""

from playwright.sync_api import Page

MEASURE = r"""() => {
    const found = [], texts = [];
    const unseen = ".visually-hidden, .skip, option";
    const isSeen = (one) => one.checkVisibility() && !one.closest(unseen);
    const every = (selector) => [...document.querySelectorAll(selector)].filter(isSeen);
    const root = document.documentElement;
    if (root.scrollWidth > innerWidth) found.push(`scrolls sideways: ${root.scrollWidth}`);

    /** Returns the visible part of a box. */
    function seen(box, element) {
        let { left, top, right, bottom } = box;
        for (let one = element; one && one !== document.body; one = one.parentElement) {
            const { overflowX, overflowY } = getComputedStyle(one);
            if (overflowX === "visible" && overflowY === "visible") continue;
            const around = one.getBoundingClientRect();
            [left, right] = [Math.max(left, around.left), Math.min(right, around.right)];
            [top, bottom] = [Math.max(top, around.top), Math.min(bottom, around.bottom)];
        }
        return { left, top, right, bottom };
    }

    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = nodes.nextNode()); ) {
        const element = node.parentElement;
        if (!node.data.trim() || !isSeen(element)) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const box of range.getClientRects()) {
            const { left, top, right, bottom } = seen(box, element);
            if (right - left < 2 || bottom - top < 2) continue;
            if (right > innerWidth + 1) found.push(`beside the page: ${node.data}`);
            texts.push({ left, top, right, bottom, element, text: node.data });
        }
        if (element.closest("svg, .strip, .sample")) continue;
        for (const { 0: word, index } of node.data.matchAll(/[\p{L}\p{N}]+/gu)) {
            if (word.length < 2 || word.length > 14) continue;
            range.setStart(node, index);
            range.setEnd(node, index + word.length);
            const lines = new Set([...range.getClientRects()].map(({ top }) => top));
            if (lines.size > 1) found.push(`broken word: ${word}`);
        }
    }

    /** Returns the fixed element above the page that an element is part of, or null. */
    function layer(element) {
        for (let one = element; one; one = one.parentElement) {
            if (getComputedStyle(one).position === "fixed") return one;
        }
        return null;
    }

    for (const [at, one] of texts.entries()) {
        for (const other of texts.slice(at + 1)) {
            const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
            const high = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
            if (wide <= 3 || high <= 5 || one.element === other.element) continue;
            if (layer(one.element) === layer(other.element)) {
                found.push(`one over the other: ${one.text} | ${other.text}`);
            }
        }
    }

    for (const one of every("button, label, h1, h2, h3, p, td, th")) {
        if (one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline") {
            found.push(`cut off: ${one.textContent}`);
        }
    }

    const panels = every("[role=tabpanel]");
    for (const one of panels) {
        if (one.innerText.trim().length < 60) found.push("an empty panel");
    }
    if (!panels.length) found.push("no panel");
    for (const chart of every(".chart, .matrix")) {
        const canvas = chart.querySelector("canvas");
        if (canvas ? canvas.width < 50 : !chart.querySelector("path, circle"))
            found.push(`nothing drawn: ${chart.ariaLabel}`);
    }
    return [...new Set(found)];
}"""


def flaws(page: Page) -> list[str]:
    """Return flaws: sideways scrolling, text that is cut off, broken within words, outside the page
    or over other text, and empty panels and charts."""
    found: list[str] = page.evaluate(MEASURE)
    return found
