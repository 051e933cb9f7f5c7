"""Peer of bench/predictors.ts: scikit-learn and LightGBM on the same rows with the same settings, one thread. Reads x.f32 and y.u8 from the folder in
argv[1], prints one JSON line per model: CPU seconds of fit, best of `repeats`, and the area under the ROC curve on the held-out rows."""
import json, sys, time
from pathlib import Path
import numpy as np
import lightgbm
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
x = np.fromfile(folder / "x.f32", np.float32).reshape(-1, settings["width"])
y = np.fromfile(folder / "y.u8", np.uint8)
rows, trees, rounds, depth = (settings[k] for k in ("rows", "trees", "rounds", "depth"))

models = {
    f"random forest|scikit-learn {sklearn.__version__}": lambda seed: RandomForestClassifier(n_estimators=trees, max_depth=30, n_jobs=1, random_state=seed),
    f"gradient boosting|LightGBM {lightgbm.__version__}": lambda seed: lightgbm.LGBMClassifier(
        n_estimators=rounds, learning_rate=0.1, max_depth=depth, num_leaves=2**depth, reg_lambda=1, min_child_weight=1, min_child_samples=1,
        max_bin=255, n_jobs=1, verbose=-1, random_state=seed),
    f"gradient boosting|scikit-learn {sklearn.__version__} (histogram)": lambda seed: HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=0.1, max_depth=depth, max_leaf_nodes=2**depth, l2_regularization=1, min_samples_leaf=1, max_bins=255,
        early_stopping=False, random_state=seed),
}
with threadpool_limits(1):
    for name, make in models.items():
        best, aucs = float("inf"), []
        for seed in range(settings["repeats"]):
            start = time.process_time()
            model = make(seed).fit(x[:rows], y[:rows])
            best = min(best, time.process_time() - start)
            aucs.append(roc_auc_score(y[rows:], model.predict_proba(x[rows:])[:, 1]))
        print(json.dumps({"model": name.split("|")[0], "peer": name.split("|")[1], "seconds": best, "aucs": aucs}), flush=True)
