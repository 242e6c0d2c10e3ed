// page.mjs HTML PICTURE light|dark WIDTH: a rendered step summary as GitHub shows it, by Chromium. The first collapsible
// section of each kind is open.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [html, picture, theme, width] = process.argv.slice(2);
const css = createRequire(import.meta.url).resolve(`github-markdown-css/github-markdown-${theme}.css`);
const page = `<!doctype html>
<meta charset="utf-8">
<style>
  ${readFileSync(css, "utf8")}
  body { margin: 0; background: ${theme === "dark" ? "#0d1117" : "#fff"} }
  .markdown-body { padding: 16px 24px 8px; font-size: 14px }
</style>
<article class="markdown-body">${readFileSync(html, "utf8")}</article>`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // A container's root can't make Chromium's sandbox; the page is our own.
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});
const viewport = { width: Number(width), height: 720 };
const tab = await browser.newPage({ viewport, deviceScaleFactor: 1.4, offline: true });
await tab.setContent(page);
await tab.evaluate(() => {
  const kinds = new Set();
  for (const section of document.querySelectorAll("details")) {
    const kind = section.querySelector("summary").textContent.replace(/^\S+:|\S+$/, "");
    section.open = kind.includes("digest") && !kinds.has(kind);
    kinds.add(kind);
  }
});
await tab.locator("article").screenshot({ path: picture });
await browser.close();
