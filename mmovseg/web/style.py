"""How the page looks. System fonts only: nothing is loaded from elsewhere."""

CSS = """
.gradio-container { max-width: 1440px !important; margin: 0 auto !important; padding: 8px 16px 24px !important; }
.gradio-container main { padding: 0 !important; }
.gradio-container .main.fillable { padding: 8px 16px !important; }
.gradio-container { --body-text-color-subdued: #475569; }
.dark .gradio-container, .gradio-container.dark { --body-text-color-subdued: #cbd5e1; }
.html-container { padding: 0 !important; }
.masthead { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; margin-bottom: 10px; }
.masthead h1 { font-size: 1.5rem; font-weight: 700; margin: 0 !important; letter-spacing: -0.01em; }
.masthead p { margin: 0 !important; color: var(--body-text-color-subdued); }
.caution { border-left: 4px solid #d97706; background: #fffbeb; color: #78350f; padding: 6px 12px; border-radius: 4px; }
.dark .caution { background: #3b2a10; color: #fde68a; }
.hint { margin: 0 !important; padding: 6px 12px; font-size: 0.8rem; }
.hint { background: var(--block-background-fill); color: var(--body-text-color-subdued); }
.message { padding: 4px 12px; border-radius: 4px; font-size: 0.9rem; border-left: 4px solid var(--color-accent); }
.message.note { color: var(--body-text-color); background: var(--background-fill-secondary); }
.message.error { border-color: #dc2626; background: #fef2f2; color: #7f1d1d; font-weight: 600; }
.dark .message.error { background: #3f1414; color: #fecaca; }
#scene input { text-overflow: ellipsis; padding-right: 1.5rem; }
#views img { image-rendering: pixelated; }
#legend table.legend { width: 100%; border: 0 !important; border-collapse: collapse; font-size: 0.9rem; margin: 0; }
#legend table.legend tr { border: 0; }
#legend table.legend th, #legend table.legend td { border: 0 !important; padding: 3px 8px; vertical-align: middle; }
#legend table.legend th { text-align: left; font-weight: 600; color: var(--body-text-color-subdued); }
#legend table.legend tbody tr { border-top: 1px solid var(--border-color-primary) !important; }
#legend table.legend .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; width: 1%; }
#legend table.legend .key { width: 34px; }
#legend table.legend .name { overflow-wrap: anywhere; min-width: 9em; }
#legend table.legend .bar { width: 45%; }
#legend table.legend .bar span { display: block; height: 10px; border-radius: 2px; min-width: 1px; }
#legend .swatch { display: block; width: 18px; height: 18px; border-radius: 3px; border: 1px solid #0003; }
#legend .unseen { font-size: 0.75rem; border: 1px solid; border-radius: 8px; padding: 0 6px; opacity: 0.7; }
"""
