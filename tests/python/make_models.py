"""Makes tests/golden/models: small seeded models of every exporter we hold ourselves to, and what onnxruntime says of them.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install onnx onnxruntime scikit-learn skl2onnx onnxmltools lightgbm xgboost pyarrow
    /tmp/venv/bin/python tests/python/make_models.py            # rewrites tests/golden/models
    /tmp/venv/bin/python tests/python/make_models.py svc mlp    # only the models whose name contains one of these

Files: `<model>.onnx`; `<inputs>.parquet`, one per data set, shared by its models; `<model>.parquet`, onnxruntime's
outputs as columns `<tensor>.<element>`; `manifest.json`, which says what belongs together. onnxruntime runs row by row and in one
batch on one thread; where the two differ by more than 5e-7, or its answer is that far from scikit-learn's own in double precision, it is no better
measure than that, and the manifest says so (`tolerance`, four times the difference).
"""

import json
import os
import sys
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("PYTHONHASHSEED") != "0":  # exporters walk sets: the same order, the same files
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])
warnings.filterwarnings("ignore")

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "golden", "models")
OPSETS = {"": 17, "ai.onnx.ml": 3}
ROWS = 80

rng = np.random.default_rng(7)


def plain_attributes():
    """skl2onnx hands numpy arrays to `make_attribute`, which newer onnx refuses."""
    original = helper.make_attribute

    def make_attribute(key, value, *args, **kwargs):
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, (list, tuple)) and any(isinstance(v, (bool, np.generic)) for v in value):
            value = [v.item() if isinstance(v, np.generic) else v for v in value]
            value = [int(v) if isinstance(v, bool) else v for v in value]
        return original(key, value, *args, **kwargs)

    helper.make_attribute = make_attribute


plain_attributes()


# ---------------------------------------------------------------- data sets


def make_data():
    """Training data (2,000 rows) and the rows that are scored (80), cast to float32 before training so that no threshold flips."""
    n, k = 2000, 8
    x = rng.normal(size=(n, k)).astype(np.float32)
    x[:, 3] = np.round(x[:, 3] * 2)
    x[:, 4] = np.abs(x[:, 4]) * 100
    z = 1.5 * x[:, 0] - x[:, 1] * (x[:, 2] > 0) + 0.01 * x[:, 4] - 0.8 + 0.3 * rng.normal(size=n)
    data = {
        "x": x,
        "binary": (z > 0).astype(np.int64),
        "three": np.digitize(z, [-1, 0.7]).astype(np.int64),
        "target": (3 * z + x[:, 5]).astype(np.float64),
        "targets": np.stack([z, 2 * x[:, 6] - z], axis=1),
        "counts": rng.poisson(np.exp(np.clip(0.4 * z, -3, 3))),
    }
    missing = x.copy()
    missing[rng.random(size=x.shape) < 0.15] = np.nan
    data["missing"] = missing
    data["positive"] = np.abs(x)
    return data


DATA = make_data()
X, XM, XP = DATA["x"], DATA["missing"], DATA["positive"]
SCORED = slice(0, ROWS)
NAMES = [f"f{i}" for i in range(X.shape[1])]
CITIES = np.array(["paris", "lyon", "nice", "lille"])


def matrix(x):
    return {name: x[SCORED, i] for i, name in enumerate(NAMES[: x.shape[1]])}


EDGES = np.array(
    [[a, b] for a in [-1.0, 0.0, -0.0, 0.5, 1.0, 2.0, np.nan, np.inf, -np.inf] for b in [-2.0, 0.0, 0.25, 3.0, np.nan]],
    dtype=np.float32,
)
INPUTS = {
    "plain": matrix(X),
    "missing": matrix(XM),
    "positive": matrix(XP),
    "plain64": {k: v.astype(np.float64) for k, v in matrix(X).items()},
    "four": {k: v for k, v in list(matrix(X).items())[:4]},
    "edges": {"f0": EDGES[:, 0], "f1": EDGES[:, 1]},
    "mixed": {
        "amount": X[SCORED, 4],
        "age": (np.abs(X[SCORED, 3]) * 3).astype(np.int64),
        "city": np.where(X[SCORED, 0] > 1.5, "berlin", CITIES[(np.arange(ROWS) * 7) % 4]),
    },
    "codes": {"c0": (np.arange(ROWS) % 5).astype(np.int64), "c1": (np.arange(ROWS) * 3 % 7).astype(np.int64)},
    "words": {"w0": CITIES[np.arange(ROWS) % 4], "w1": np.where(np.arange(ROWS) % 3 == 0, "other", "nice")},
}

# ---------------------------------------------------------------- the list of models

CASES = {}
TRAINED = {}


def case(inputs, name=None):
    """Registers a function that returns an ONNX model (bytes or proto)."""

    def register(f):
        CASES[name or f.__name__] = (inputs, f)
        return f

    return register


def skl(name, make, y="binary", inputs="plain", x=None, zipmap=False, options=None, kind="float", opset=None):
    """A scikit-learn estimator or pipeline with one [N, K] input, exported by skl2onnx."""

    def build():
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

        data = {"plain": X, "missing": XM, "positive": XP, "plain64": X.astype(np.float64), "four": X[:, :4]}[inputs] if x is None else x
        target = DATA[y] if isinstance(y, str) else y
        model = make()
        model.fit(data, target)
        TRAINED[name] = (model, data[SCORED])
        tensor = {"float": FloatTensorType, "double": DoubleTensorType}[kind]([None, data.shape[1]])
        opts = dict(options or {})
        if not zipmap and hasattr(model, "predict_proba") and "zipmap" not in opts:
            opts["zipmap"] = False
        return convert_sklearn(
            model, initial_types=[("X", tensor)], options={id(model): opts} if opts else None, target_opset=opset or OPSETS
        )

    CASES[name] = (inputs, build)


def sklearn_cases():
    from sklearn import calibration, discriminant_analysis, ensemble, linear_model, naive_bayes, neural_network, svm, tree
    from sklearn import cluster, decomposition, impute, neighbors, pipeline, preprocessing, feature_selection

    three_words = np.array(["high", "low", "mid"])[DATA["three"]]
    two_words = np.array(["no", "yes"])[DATA["binary"]]
    lr = lambda: linear_model.LogisticRegression(max_iter=200)
    pipe = pipeline.make_pipeline

    skl("lr_binary", lr)
    skl("lr_zipmap", lr, zipmap=True)
    skl("lr_zipmap_words", lr, y=two_words, zipmap=True)
    skl("lr_words", lr, y=two_words)
    skl("lr_three", lr, y="three")
    skl("lr_three_words", lr, y=three_words)
    skl("lr_raw", lr, options={"raw_scores": True, "zipmap": False})
    skl("lr_double", lr, inputs="plain64", kind="double")
    skl("lr_scaler", lambda: pipe(preprocessing.StandardScaler(), lr()))
    skl("lr_scaler_double", lambda: pipe(preprocessing.StandardScaler(), lr()), inputs="plain64", kind="double")
    skl("lr_minmax", lambda: pipe(preprocessing.MinMaxScaler(), lr()))
    skl("lr_minmax_clip", lambda: pipe(preprocessing.MinMaxScaler(feature_range=(0.2, 0.6), clip=True), lr()))
    skl("lr_robust", lambda: pipe(preprocessing.RobustScaler(), lr()))
    skl("lr_maxabs", lambda: pipe(preprocessing.MaxAbsScaler(), lr()))
    for norm in ("l1", "l2", "max"):
        skl(f"lr_normalizer_{norm}", lambda norm=norm: pipe(preprocessing.Normalizer(norm), lr()))
    skl("lr_imputer_mean", lambda: pipe(impute.SimpleImputer(), preprocessing.StandardScaler(), lr()), inputs="missing")
    skl("lr_poly", lambda: pipe(preprocessing.PolynomialFeatures(2), preprocessing.StandardScaler(), lr()), inputs="four")
    skl("lr_bins_ordinal", lambda: pipe(preprocessing.KBinsDiscretizer(4, encode="ordinal"), lr()))
    skl("lr_bins_onehot", lambda: pipe(preprocessing.KBinsDiscretizer(4, encode="onehot-dense"), lr()), inputs="four")
    skl("lr_binarizer", lambda: pipe(preprocessing.Binarizer(threshold=0.3), lr()))
    skl("lr_power", lambda: pipe(preprocessing.PowerTransformer(), lr()))
    skl("lr_select", lambda: pipe(feature_selection.SelectKBest(k=3), lr()))
    skl("lr_pca", lambda: pipe(decomposition.PCA(3), lr()))
    skl("lr_union", lambda: pipe(pipeline.make_union(preprocessing.StandardScaler(), preprocessing.MinMaxScaler()), lr()))
    skl("lr_calibrated", lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(dual=False), cv=2))
    skl("lr_isotonic", lambda: calibration.CalibratedClassifierCV(linear_model.LogisticRegression(), method="isotonic", cv=2))
    skl("sgd_log", lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0))
    skl("sgd_log_three", lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0), y="three")
    skl("sgd_hinge", lambda: linear_model.SGDClassifier(random_state=0))
    skl("linear_svc", lambda: svm.LinearSVC(dual=False))
    skl("linear_svc_three", lambda: svm.LinearSVC(dual=False), y="three")
    skl("perceptron", lambda: linear_model.Perceptron())
    skl("linear", lambda: linear_model.LinearRegression(), y="target")
    skl("ridge_targets", lambda: linear_model.Ridge(), y="targets")
    skl("lasso", lambda: linear_model.Lasso(0.1), y="target")
    skl("poisson", lambda: pipe(preprocessing.StandardScaler(), linear_model.PoissonRegressor()), y="counts")
    skl("linear_double", lambda: linear_model.LinearRegression(), y="target", inputs="plain64", kind="double")
    skl("lda", lambda: discriminant_analysis.LinearDiscriminantAnalysis(), y="three")

    skl("tree_binary", lambda: tree.DecisionTreeClassifier(max_depth=5, random_state=0))
    skl("tree_zipmap", lambda: tree.DecisionTreeClassifier(max_depth=4, random_state=0), zipmap=True)
    skl("tree_three", lambda: tree.DecisionTreeClassifier(max_depth=5, random_state=0), y="three")
    skl("tree_words", lambda: tree.DecisionTreeClassifier(max_depth=4, random_state=0), y=three_words)
    skl("tree_missing", lambda: tree.DecisionTreeClassifier(max_depth=5, random_state=0), inputs="missing")
    skl("tree_regressor", lambda: tree.DecisionTreeRegressor(max_depth=6, random_state=0), y="target")
    skl("tree_targets", lambda: tree.DecisionTreeRegressor(max_depth=4, random_state=0), y="targets")
    skl("tree_stump", lambda: tree.DecisionTreeClassifier(max_depth=1, random_state=0))
    skl("forest_binary", lambda: ensemble.RandomForestClassifier(12, max_depth=5, random_state=0))
    skl("forest_three", lambda: ensemble.RandomForestClassifier(9, max_depth=4, random_state=0), y="three")
    skl("forest_missing", lambda: ensemble.RandomForestClassifier(9, max_depth=5, random_state=0), inputs="missing")
    skl("forest_regressor", lambda: ensemble.RandomForestRegressor(11, max_depth=5, random_state=0), y="target")
    skl("forest_targets", lambda: ensemble.RandomForestRegressor(7, max_depth=4, random_state=0), y="targets")
    skl("extra_trees", lambda: ensemble.ExtraTreesClassifier(9, max_depth=5, random_state=0))
    skl("boosting_binary", lambda: ensemble.GradientBoostingClassifier(n_estimators=15, random_state=0))
    skl("boosting_three", lambda: ensemble.GradientBoostingClassifier(n_estimators=6, random_state=0), y="three")
    skl("boosting_regressor", lambda: ensemble.GradientBoostingRegressor(n_estimators=15, random_state=0), y="target")
    skl("hist_binary", lambda: ensemble.HistGradientBoostingClassifier(max_iter=12, random_state=0))
    skl("hist_missing", lambda: ensemble.HistGradientBoostingClassifier(max_iter=12, random_state=0), inputs="missing")
    skl("hist_three", lambda: ensemble.HistGradientBoostingClassifier(max_iter=4, max_depth=4, random_state=0), y="three")
    skl("hist_regressor", lambda: ensemble.HistGradientBoostingRegressor(max_iter=12, random_state=0), y="target", inputs="missing")
    skl("ada_boost", lambda: ensemble.AdaBoostClassifier(n_estimators=6, random_state=0))
    skl("bagging", lambda: ensemble.BaggingClassifier(n_estimators=4, random_state=0, estimator=tree.DecisionTreeClassifier(max_depth=3)))
    skl("voting_soft", lambda: ensemble.VotingClassifier([("a", lr()), ("b", tree.DecisionTreeClassifier(max_depth=3, random_state=0))], voting="soft", flatten_transform=False))
    skl("stacking", lambda: ensemble.StackingClassifier([("a", lr()), ("b", tree.DecisionTreeClassifier(max_depth=3, random_state=0))], cv=2))
    skl("isolation_forest", lambda: ensemble.IsolationForest(n_estimators=8, max_samples=64, random_state=0), opset={"": 15, "ai.onnx.ml": 3})

    few = 300

    def small(name, make, y="binary", **kw):
        skl(name, make, y=DATA[y][:few], x=X[:few], **kw)

    small("svc_rbf", lambda: svm.SVC())
    small("svc_rbf_three", lambda: svm.SVC(), y="three")
    small("svc_probability", lambda: svm.SVC(probability=True, random_state=0))
    small("svc_probability_three", lambda: svm.SVC(probability=True, random_state=0), y="three")
    small("svc_linear", lambda: pipe(preprocessing.StandardScaler(), svm.SVC(kernel="linear")))
    small("svc_poly", lambda: pipe(preprocessing.StandardScaler(), svm.SVC(kernel="poly", degree=2, coef0=1.0, probability=True, random_state=0)))
    small("svc_sigmoid", lambda: pipe(preprocessing.StandardScaler(), svm.SVC(kernel="sigmoid", probability=True, random_state=0)), y="three")
    small("svr_rbf", lambda: svm.SVR(), y="target")
    small("svr_linear", lambda: pipe(preprocessing.StandardScaler(), svm.SVR(kernel="linear")), y="target")
    small("one_class_svm", lambda: svm.OneClassSVM(nu=0.2))
    small("knn", lambda: neighbors.KNeighborsClassifier(5))

    skl("mlp_binary", lambda: pipe(preprocessing.StandardScaler(), neural_network.MLPClassifier((16, 8), max_iter=30, random_state=0)))
    skl("mlp_three_tanh", lambda: pipe(preprocessing.StandardScaler(), neural_network.MLPClassifier((12,), activation="tanh", max_iter=30, random_state=0)), y="three")
    skl("mlp_regressor", lambda: pipe(preprocessing.StandardScaler(), neural_network.MLPRegressor(hidden_layer_sizes=(10,), activation="logistic", max_iter=30, random_state=0)), y="target")
    skl("nb_gaussian", lambda: naive_bayes.GaussianNB(), y="three")
    skl("nb_bernoulli", lambda: naive_bayes.BernoulliNB(binarize=0.1))
    skl("nb_multinomial", lambda: naive_bayes.MultinomialNB(), inputs="positive", y="three")
    skl("kmeans", lambda: cluster.KMeans(3, n_init=1, random_state=0))

    def columns(name, transformer, model=None):
        def build():
            import pandas as pd
            from sklearn.compose import ColumnTransformer
            from skl2onnx import convert_sklearn
            from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

            frame = pd.DataFrame(
                {"amount": X[:, 4], "age": (np.abs(X[:, 3]) * 3).astype(np.int64), "city": CITIES[(np.arange(len(X)) * 7) % 4]}
            )
            frame["amount"] = frame["amount"].astype(np.float32)
            flow = pipe(ColumnTransformer(transformer), model or lr())
            flow.fit(frame, DATA["binary"])
            kinds = [("amount", FloatTensorType([None, 1])), ("age", Int64TensorType([None, 1])), ("city", StringTensorType([None, 1]))]
            return convert_sklearn(flow, initial_types=kinds, options={id(flow): {"zipmap": False}}, target_opset=OPSETS)

        CASES[name] = ("mixed", build)

    onehot = lambda: preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns("columns_onehot", [("n", preprocessing.StandardScaler(), ["amount"]), ("c", onehot(), ["city"]), ("a", "passthrough", ["age"])])
    columns("columns_onehot_int", [("n", preprocessing.StandardScaler(), ["amount"]), ("c", onehot(), ["age"]), ("d", onehot(), ["city"])])
    columns(
        "columns_ordinal",
        [("n", "passthrough", ["amount", "age"]), ("c", preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["city"])],
        tree.DecisionTreeClassifier(max_depth=4, random_state=0),
    )


def lightgbm_cases():
    import lightgbm as lgb

    base = dict(n_estimators=10, num_leaves=15, random_state=0, n_jobs=1, verbose=-1, deterministic=True, force_row_wise=True)

    def add(name, make, y="binary", inputs="plain", categorical=None, x=None, **kw):
        def build():
            from onnxmltools import convert_lightgbm
            from onnxmltools.convert.common.data_types import FloatTensorType

            data = x if x is not None else {"plain": X, "missing": XM}[inputs]
            model = make()
            model.fit(data, DATA[y], **({"categorical_feature": categorical} if categorical else {}))
            return convert_lightgbm(model, initial_types=[("X", FloatTensorType([None, data.shape[1]]))], target_opset=15, zipmap=kw.get("zipmap", False))

        CASES[name] = (inputs, build)

    add("lightgbm_binary", lambda: lgb.LGBMClassifier(**base))
    add("lightgbm_zipmap", lambda: lgb.LGBMClassifier(**base), zipmap=True)
    add("lightgbm_missing", lambda: lgb.LGBMClassifier(**base), inputs="missing")
    add("lightgbm_zero_missing", lambda: lgb.LGBMClassifier(zero_as_missing=True, **base))
    add("lightgbm_three", lambda: lgb.LGBMClassifier(**{**base, "n_estimators": 5}), y="three")
    add("lightgbm_three_missing", lambda: lgb.LGBMClassifier(**{**base, "n_estimators": 4}), y="three", inputs="missing")
    add("lightgbm_regressor", lambda: lgb.LGBMRegressor(**base), y="target")
    add("lightgbm_regressor_missing", lambda: lgb.LGBMRegressor(**base), y="target", inputs="missing")
    add("lightgbm_poisson", lambda: lgb.LGBMRegressor(objective="poisson", **base), y="counts")
    add("lightgbm_rf", lambda: lgb.LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **base), y="target")
    add("lightgbm_dart", lambda: lgb.LGBMClassifier(boosting_type="dart", **base))
    codes = X.copy()
    codes[:, 3] = np.abs(codes[:, 3])
    INPUTS["coded"] = matrix(codes)
    add("lightgbm_categorical", lambda: lgb.LGBMClassifier(min_data_per_group=10, cat_smooth=1, **base), inputs="coded", x=codes, categorical=[3])


def xgboost_cases():
    import xgboost as xgb

    base = dict(n_estimators=10, max_depth=4, random_state=0, n_jobs=1)

    def add(name, make, y="binary", inputs="plain"):
        def build():
            from onnxmltools import convert_xgboost
            from onnxmltools.convert.common.data_types import FloatTensorType

            data = {"plain": X, "missing": XM}[inputs]
            model = make()
            model.fit(data, DATA[y])
            return convert_xgboost(model, initial_types=[("X", FloatTensorType([None, data.shape[1]]))], target_opset=15)

        CASES[name] = (inputs, build)

    add("xgboost_binary", lambda: xgb.XGBClassifier(**base))
    add("xgboost_base_score", lambda: xgb.XGBClassifier(base_score=0.5, **base))
    add("xgboost_missing", lambda: xgb.XGBClassifier(**base), inputs="missing")
    add("xgboost_three", lambda: xgb.XGBClassifier(**{**base, "n_estimators": 5}), y="three")
    add("xgboost_three_missing", lambda: xgb.XGBClassifier(**{**base, "n_estimators": 4}), y="three", inputs="missing")
    add("xgboost_regressor", lambda: xgb.XGBRegressor(**base), y="target")
    add("xgboost_regressor_missing", lambda: xgb.XGBRegressor(**base), y="target", inputs="missing")
    add("xgboost_poisson", lambda: xgb.XGBRegressor(objective="count:poisson", **base), y="counts")
    add("xgboost_forest", lambda: xgb.XGBRFClassifier(**base))
    add("xgboost_leafwise", lambda: xgb.XGBClassifier(**{**base, "max_depth": 0}, grow_policy="lossguide", max_leaves=20, tree_method="hist"), inputs="missing")


# ---------------------------------------------------------------- models written by hand: what exporters write seldom


def graph(nodes, inputs, outputs, initializers=(), ml=3, opset=17):
    g = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in initializers],
    )
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)], ir_version=8)


F, D, I, S = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
ML = dict(domain="ai.onnx.ml")


def stumps(modes, values, features, missing):
    """Trees of one split each, leaves 1 (true) and 2 (false)."""
    n = len(modes)
    return dict(
        nodes_treeids=[t for t in range(n) for _ in range(3)],
        nodes_nodeids=[0, 1, 2] * n,
        nodes_featureids=[v for f in features for v in (f, 0, 0)],
        nodes_values=[float(v) for t in values for v in (t, 0, 0)],
        nodes_modes=[v for m in modes for v in (m, "LEAF", "LEAF")],
        nodes_truenodeids=[1, 0, 0] * n,
        nodes_falsenodeids=[2, 0, 0] * n,
        nodes_missing_value_tracks_true=[v for m in missing for v in (m, 0, 0)],
    )


MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def handmade_cases():
    def trees(name, op, attributes, outputs, inputs="edges", ml=3):
        CASES[name] = (inputs, lambda: graph([helper.make_node(op, ["X"], [o[0] for o in outputs], **attributes, **ML)], [("X", F, [None, 2])], outputs, ml=ml))

    # every comparison, both ways for a missing value, thresholds at the values that occur, also zero and infinity
    modes, values, features, missing = [], [], [], []
    for m in MODES:
        for v in (0.0, 0.5, float("inf"), float("-inf")):
            for track in (0, 1):
                modes.append(m), values.append(v), features.append(0), missing.append(track)
    powers = [2.0 ** (i % 20) for i in range(len(modes))]
    for chunk in range(0, len(modes), 16):
        part = slice(chunk, chunk + 16)
        n = len(modes[part])
        at = stumps(modes[part], values[part], features[part], missing[part])
        at.update(
            n_targets=1,
            target_treeids=[t for t in range(n) for _ in range(2)],
            target_nodeids=[1, 2] * n,
            target_ids=[0] * (2 * n),
            target_weights=[w for t in range(n) for w in (2.0**t, 0.0)],
        )
        trees(f"modes_{chunk // 16}", "TreeEnsembleRegressor", at, [("Y", F, [None, 1])])

    def regressor(name, function, base, post="NONE", targets=1, ids=None):
        at = stumps(["BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT"], [0.0, 0.25, 1.0], [0, 1, 0], [0, 1, 1])
        at.update(
            n_targets=targets,
            aggregate_function=function,
            target_treeids=[0, 0, 1, 1, 2, 2],
            target_nodeids=[1, 2] * 3,
            target_ids=ids or [0] * 6,
            target_weights=[0.1, -0.4, 0.3, 0.2, 0.15, 0.35],
            post_transform=post,
        )
        if base is not None:
            at["base_values"] = base
        trees(name, "TreeEnsembleRegressor", at, [("Y", F, [None, targets])])

    for function in ("SUM", "AVERAGE", "MIN", "MAX"):
        regressor(f"aggregate_{function.lower()}", function, [0.25])
        regressor(f"aggregate_{function.lower()}_no_base", function, None)
        regressor(f"aggregate_{function.lower()}_targets", function, [0.25, -1.0], targets=2, ids=[0, 1, 1, 0, 0, 1])
    for post in ("LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"):
        regressor(f"regressor_post_{post.lower()}", "SUM", [0.35, 0.5], post=post, targets=2, ids=[0, 1, 1, 0, 0, 1])
        regressor(f"regressor_post_{post.lower()}_one", "SUM", [0.35], post=post)

    def classifier(name, ids, weights, base, post, labels):
        at = stumps(["BRANCH_LEQ", "BRANCH_LEQ"], [0.0, 0.3], [0, 1], [0, 0])
        at.update(class_treeids=[0, 0, 1, 1], class_nodeids=[1, 2, 1, 2], class_ids=ids, class_weights=weights, post_transform=post)
        at["classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"] = labels
        if base is not None:
            at["base_values"] = base
        kind = S if isinstance(labels[0], str) else I
        trees(name, "TreeEnsembleClassifier", at, [("L", kind, [None]), ("P", F, [None, len(labels)])])

    at = stumps(["BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT"], [0.1, 0.25, 1.0], [0, 1, 3], [0, 1, 0])
    at.update(n_targets=1, target_treeids=[0, 0, 1, 1, 2, 2], target_nodeids=[1, 2] * 3, target_ids=[0] * 6, target_weights=[0.1, -0.4, 0.3, 0.2, 0.15, 0.35])
    CASES["tree_double"] = ("plain64", lambda: graph([helper.make_node("TreeEnsembleRegressor", ["X"], ["Y"], **at, **ML)], [("X", D, [None, 8])], [("Y", F, [None, 1])]))
    exact = {k: v for k, v in at.items() if k not in ("nodes_values", "target_weights")}
    exact["nodes_values_as_tensor"] = numpy_helper.from_array(np.array(at["nodes_values"]), "v")
    exact["target_weights_as_tensor"] = numpy_helper.from_array(np.array(at["target_weights"]), "w")
    CASES["tree_double_exact"] = ("plain64", lambda: graph([helper.make_node("TreeEnsembleRegressor", ["X"], ["Y"], **exact, **ML)], [("X", D, [None, 8])], [("Y", F, [None, 1])]))

    # onnxruntime's special cases of two classes: who has a weight, whether all are positive, how many base values
    n = 0
    for ids in ([0] * 4, [1] * 4, [0, 1, 0, 1]):
        for weights in ([0.2, 0.4, 0.1, 0.3], [-0.2, 0.4, -0.1, 0.7]):
            for base in (None, [0.25], [0.1, 0.25]):
                for post in ("NONE", "LOGISTIC", "SOFTMAX"):
                    if ids == [0, 1, 0, 1] and base == [0.25]:
                        continue  # onnxruntime leaves the second probability unwritten
                    classifier(f"two_classes_{n:02}", ids, weights, base, post, [3, 7])
                    n += 1
    classifier("two_classes_words", [0] * 4, [-0.2, 0.4, -0.1, 0.7], None, "LOGISTIC", ["no", "yes"])
    for post in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"):
        classifier(f"three_classes_{post.lower()}", [0, 1, 2, 1], [0.2, 0.4, 0.1, 0.3], None, post, [3, 7, 11])
        classifier(f"three_classes_{post.lower()}_base", [0, 1, 2, 1], [0.2, 0.4, 0.1, 0.3], [0.2, 0.15, 0.1], post, [3, 7, 11])

    # opset 5's TreeEnsemble: one operator, members by NaN-separated sets
    def tree_ensemble(name, aggregate, post, members=False):
        def build():
            at = dict(
                n_targets=2,
                aggregate_function=aggregate,
                post_transform=post,
                tree_roots=[0, 2],
                nodes_modes=numpy_helper.from_array(np.array([0, 2 if not members else 6, 1], np.uint8), "m"),
                nodes_featureids=[0, 1, 1],
                nodes_splits=numpy_helper.from_array(np.array([0.5, 0.25, 0.0], np.float32), "s"),
                nodes_trueleafs=[0, 1, 1],
                nodes_truenodeids=[1, 1, 3],
                nodes_falseleafs=[1, 1, 1],
                nodes_falsenodeids=[0, 2, 4],
                nodes_missing_value_tracks_true=[0, 1, 0],
                leaf_targetids=[0, 1, 0, 1, 0],
                leaf_weights=numpy_helper.from_array(np.array([0.5, -0.25, 1.5, 2.0, -1.0], np.float32), "w"),
            )
            if members:
                at["membership_values"] = numpy_helper.from_array(np.array([0.25, 3.0, np.nan], np.float32), "v")
            return graph([helper.make_node("TreeEnsemble", ["X"], ["Y"], **at, **ML)], [("X", F, [None, 2])], [("Y", F, [None, 2])], ml=5, opset=21)

        CASES[name] = ("edges", build)

    tree_ensemble("tree_ensemble_sum", 1, 0)
    tree_ensemble("tree_ensemble_average", 0, 1)
    tree_ensemble("tree_ensemble_min", 2, 0)
    tree_ensemble("tree_ensemble_members", 1, 0, members=True)

    def one(name, op, attributes, inputs, kinds, outputs, ml=3, takes=None):
        """One ml operator; several inputs are one per column."""
        CASES[name] = (inputs, lambda: graph([helper.make_node(op, [k[0] for k in kinds], [o[0] for o in outputs], **attributes, **ML)], kinds, outputs, ml=ml))

    x8 = [("X", F, [None, 8])]
    coefficients = np.linspace(-1, 1, 24).astype(np.float32).tolist()
    for post in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"):
        scaled = [c / 100 for c in coefficients] if post == "PROBIT" else coefficients
        inputs = "plain"
        intercepts = [0.4, 0.5, 0.45] if post == "PROBIT" else [0.1, -0.2, 0.3]
        one(f"linear_classifier_{post.lower()}", "LinearClassifier", dict(coefficients=scaled, intercepts=intercepts, classlabels_ints=[4, 5, 6], post_transform=post), inputs, x8, [("L", I, [None]), ("P", F, [None, 3])])
        one(f"linear_regressor_{post.lower()}", "LinearRegressor", dict(coefficients=scaled, intercepts=intercepts, targets=3, post_transform=post), inputs, x8, [("Y", F, [None, 3])])
    for post in ("NONE", "LOGISTIC"):
        one(f"linear_classifier_one_{post.lower()}", "LinearClassifier", dict(coefficients=coefficients[:8], intercepts=[0.1], classlabels_ints=[4, 5], post_transform=post), "plain", x8, [("L", I, [None]), ("P", F, [None, 2])])
    one("linear_regressor_no_intercept", "LinearRegressor", dict(coefficients=coefficients[:8], targets=1), "plain", x8, [("Y", F, [None, 1])])
    one("scaler_one", "Scaler", dict(offset=[0.5], scale=[2.0]), "plain", x8, [("Y", F, [None, 8])])
    one("imputer_one", "Imputer", dict(imputed_value_floats=[7.5], replaced_value_float=float("nan")), "missing", x8, [("Y", F, [None, 8])])
    one("imputer_zero", "Imputer", dict(imputed_value_floats=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], replaced_value_float=0.0), "plain", x8, [("Y", F, [None, 8])])
    one("binarizer", "Binarizer", dict(threshold=0.5), "plain", x8, [("Y", F, [None, 8])])
    for norm in ("MAX", "L1", "L2"):
        one(f"normalizer_{norm.lower()}", "Normalizer", dict(norm=norm), "plain", x8, [("Y", F, [None, 8])])
    x2 = [("f0", F, [None, 1]), ("f1", F, [None, 1])]
    one("feature_vectorizer", "FeatureVectorizer", dict(inputdimensions=[1, 1]), "edges", x2, [("Y", F, [None, 2])])
    codes = [("c0", I, [None, 1]), ("c1", I, [None, 1])]
    words = [("w0", S, [None, 1]), ("w1", S, [None, 1])]

    def two(name, inputs, kinds, nodes, outputs, initializers=(), **kw):
        CASES[name] = (inputs, lambda: graph(nodes(), kinds, outputs, initializers, **kw))

    encode = lambda a, b, out, **at: helper.make_node("LabelEncoder", [a], [out], **at, **ML)
    two("label_words_to_int", "words", words, lambda: [
        encode("w0", "", "A", keys_strings=["paris", "lyon"], values_int64s=[10, 20], default_int64=-5),
        encode("w1", "", "B", keys_strings=["other"], values_floats=[0.5], default_float=-1.5)],
        [("A", I, [None, 1]), ("B", F, [None, 1])])
    two("label_int_to_words", "codes", codes, lambda: [
        encode("c0", "", "A", keys_int64s=[0, 1, 2], values_strings=["zero", "one", "two"], default_string="many"),
        encode("c1", "", "B", keys_int64s=[0, 1, 2], values_floats=[0.5, 1.5, 2.5])],
        [("A", S, [None, 1]), ("B", F, [None, 1])])
    two("label_old", "words", words, lambda: [
        helper.make_node("LabelEncoder", ["w0"], ["A"], classes_strings=["lille", "nice"], default_int64=9, **ML),
        helper.make_node("LabelEncoder", ["w1"], ["B"], classes_strings=["other", "nice"], **ML)],
        [("A", I, [None, 1]), ("B", I, [None, 1])], ml=1)
    two("label_float", "edges", x2, lambda: [
        encode("f0", "", "A", keys_floats=[0.0, 1.0, float("nan")], values_floats=[5.0, 6.0, 7.0], default_float=8.0),
        encode("f1", "", "B", keys_floats=[0.25], values_strings=["quarter"], default_string="-")],
        [("A", F, [None, 1]), ("B", S, [None, 1])])
    two("category_mapper", "words", words, lambda: [
        helper.make_node("CategoryMapper", ["w0"], ["A"], cats_strings=["paris", "lyon", "nice"], cats_int64s=[3, 4, 5], default_int64=-9, **ML),
        helper.make_node("CategoryMapper", ["A"], ["B"], cats_strings=["x", "y"], cats_int64s=[3, -9], default_string="?", **ML),
        helper.make_node("Identity", ["w1"], ["C"])],
        [("A", I, [None, 1]), ("B", S, [None, 1]), ("C", S, [None, 1])])
    two("onehot_words", "words", words, lambda: [
        helper.make_node("OneHotEncoder", ["w0"], ["A"], cats_strings=["nice", "paris"], zeros=1, **ML),
        helper.make_node("OneHotEncoder", ["w1"], ["B"], cats_strings=["nice", "other"], zeros=0, **ML)],
        [("A", F, [None, 1, 2]), ("B", F, [None, 1, 2])])
    two("onehot_ints", "codes", codes, lambda: [
        helper.make_node("OneHotEncoder", ["c0"], ["A"], cats_int64s=[0, 2, 4], zeros=1, **ML),
        helper.make_node("Cast", ["c1"], ["F"], to=F),
        helper.make_node("OneHotEncoder", ["F"], ["B"], cats_int64s=[1, 3, 5], zeros=1, **ML)],
        [("A", F, [None, 1, 3]), ("B", F, [None, 1, 3])])
    two("feature_extractor", "plain", x8, lambda: [helper.make_node("ArrayFeatureExtractor", ["X", "at"], ["Y"], **ML)], [("Y", F, [None, 3])], [("at", np.array([5, 0, 5], np.int64))])
    x8d = [("X", D, [None, 8])]
    two("scaler_double", "plain64", x8d, lambda: [helper.make_node("Scaler", ["X"], ["Y"], offset=[0.1] * 8, scale=[3.0] * 8, **ML)], [("Y", F, [None, 8])])

    # the plain operators, as PyTorch and Keras write them
    w = np.random.default_rng(11)
    f32 = lambda *shape: (w.normal(size=shape) * 0.5).astype(np.float32)
    two("torch_mlp", "plain", x8, lambda: [
        helper.make_node("Gemm", ["X", "w1", "b1"], ["h1"], transB=1),
        helper.make_node("Relu", ["h1"], ["a1"]),
        helper.make_node("Gemm", ["a1", "w2", "b2"], ["h2"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("Tanh", ["h2"], ["a2"]),
        helper.make_node("Gemm", ["a2", "w3", "b3"], ["h3"]),
        helper.make_node("Sigmoid", ["h3"], ["Y"])],
        [("Y", F, [None, 1])], [("w1", f32(19, 8)), ("b1", f32(19)), ("w2", f32(33, 19)), ("b2", f32(33)), ("w3", f32(33, 1)), ("b3", f32(1))])
    two("keras_mlp", "plain", x8, lambda: [
        helper.make_node("MatMul", ["X", "w1"], ["h1"]),
        helper.make_node("Add", ["h1", "b1"], ["s1"]),
        helper.make_node("Elu", ["s1"], ["a1"]),
        helper.make_node("BatchNormalization", ["a1", "g", "b", "m", "v"], ["n1"], epsilon=1e-3),
        helper.make_node("Dropout", ["n1"], ["d1"]),
        helper.make_node("MatMul", ["d1", "w2"], ["h2"]),
        helper.make_node("Add", ["h2", "b2"], ["s2"]),
        helper.make_node("Softmax", ["s2"], ["Y"], axis=-1),
        helper.make_node("LogSoftmax", ["s2"], ["Z"], axis=-1)],
        [("Y", F, [None, 4]), ("Z", F, [None, 4])], [("w1", f32(8, 12)), ("b1", f32(12)), ("g", f32(12)), ("b", f32(12)), ("m", f32(12)), ("v", np.abs(f32(12))), ("w2", f32(12, 4)), ("b2", f32(4))])
    unary = ["Abs", "Neg", "Floor", "Ceil", "Round", "Sign", "Sigmoid", "Tanh", "Relu", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "HardSigmoid", "Exp", "Erf"]
    two("unary", "four", [("X", F, [None, 4])], lambda: [helper.make_node(op, ["X"], [op + "_o"]) for op in unary], [(op + "_o", F, [None, 4]) for op in unary])
    two("unary_positive", "positive", x8, lambda: [helper.make_node(op, ["X"], [op + "_o"]) for op in ("Sqrt", "Log", "Reciprocal")] + [helper.make_node("Pow", ["X", "e"], ["Pow_o"])],
        [(op + "_o", F, [None, 8]) for op in ("Sqrt", "Log", "Reciprocal", "Pow")], [("e", np.array(1.7, np.float32))])
    two("reduce", "four", [("X", F, [None, 4])], lambda: [helper.make_node(op, ["X"], [op + "_o"], axes=[1], keepdims=1) for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSumExp")]
        + [helper.make_node("ReduceSum", ["X", "ax"], ["ReduceSum_o"], keepdims=0)],
        [(op + "_o", F, [None, 1]) for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSumExp")] + [("ReduceSum_o", F, [None])], [("ax", np.array([1], np.int64))])
    two("shapes", "plain", x8, lambda: [
        helper.make_node("Slice", ["X", "s0", "s1", "one"], ["a"]),
        helper.make_node("Slice", ["X", "s2", "s3", "one", "mtwo"], ["b"]),
        helper.make_node("Gather", ["X", "at"], ["c"], axis=1),
        helper.make_node("Concat", ["a", "b", "c"], ["d"], axis=-1),
        helper.make_node("Unsqueeze", ["d", "one"], ["e"]),
        helper.make_node("Squeeze", ["e", "one"], ["f"]),
        helper.make_node("Split", ["X"], ["g0", "g1"], axis=1),
        helper.make_node("Greater", ["g0", "g1"], ["gt"]),
        helper.make_node("Where", ["gt", "g0", "g1"], ["h"]),
        helper.make_node("Flatten", ["e"], ["i"]),
        helper.make_node("Clip", ["X", "lo", "hi"], ["j"]),
        helper.make_node("ArgMax", ["X"], ["k"], axis=1, keepdims=0),
        helper.make_node("ArgMin", ["X"], ["l"], axis=1, keepdims=1),
        helper.make_node("Max", ["g0", "g1", "lo"], ["m"]),
        helper.make_node("Sum", ["g0", "g1", "g0"], ["n"])],
        [("f", F, [None, 9]), ("h", F, [None, 4]), ("i", F, [None, 9]), ("j", F, [None, 8]), ("k", I, [None]), ("l", I, [None, 1]), ("m", F, [None, 4]), ("n", F, [None, 4])],
        [("s0", np.array([1], np.int64)), ("s1", np.array([3], np.int64)), ("one", np.array([1], np.int64)), ("s2", np.array([-1], np.int64)), ("s3", np.array([-9], np.int64)), ("mtwo", np.array([-2], np.int64)), ("at", np.array([7, -8, 2], np.int64)), ("lo", np.array(-0.5, np.float32)), ("hi", np.array(1.0, np.float32))])
    # a convolution: an operator that only the neural engine has
    two("convolution", "plain", x8, lambda: [
        helper.make_node("Unsqueeze", ["X", "one"], ["u"]),
        helper.make_node("Conv", ["u", "k"], ["c"], kernel_shape=[3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["Y"])],
        [("Y", F, [None, 2])], [("one", np.array([1], np.int64)), ("k", f32(4, 1, 3)), ("w", f32(24, 2)), ("b", f32(2))])


# ---------------------------------------------------------------- running and writing


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feeds(sess, columns, rows):
    wanted = sess.get_inputs()
    pick = lambda v: v[rows]
    if len(wanted) == 1 and len(columns) != 1:
        kind = np.float64 if "double" in wanted[0].type else np.float32
        return {wanted[0].name: np.stack([pick(v) for v in columns.values()], axis=1).astype(kind)}
    out = {}
    for w in wanted:
        v = pick(columns[w.name])
        out[w.name] = (v.astype(object) if v.dtype.kind in "US" else v).reshape(-1, 1)
    return out


def flat(names, values):
    """Outputs as columns `<tensor>.<element>`; a ZipMap's dictionaries by their classes' order."""
    columns = {}
    for name, value in zip(names, values):
        if isinstance(value, list):
            value = np.array([[row[k] for k in sorted(row)] for row in value], dtype=np.float32)
        value = value.reshape(len(value), -1)
        for i in range(value.shape[1]):
            columns[f"{name}.{i}"] = value[:, i]
    return columns


def answers(model, x):
    """What scikit-learn says in double precision, tensor by tensor."""
    x = x.astype(np.float64)
    for method in ("predict_proba", "decision_function", "transform", "predict"):
        try:
            value = np.asarray(getattr(model, method)(x))
        except Exception:
            continue
        if value.dtype.kind == "f":
            value = value.reshape(len(x), -1)
            yield value
            if value.shape[1] == 1:
                yield np.concatenate([-value, value], axis=1)


def off(value, columns):
    """How far onnxruntime's nearest output of the same width is from the library's, if it is the same quantity at all."""
    tensors = {}
    for name, column in columns.items():
        tensors.setdefault(name.rsplit(".", 1)[0], []).append(column)
    same = [np.stack(t, axis=1) for t in tensors.values() if len(t) == value.shape[1] and t[0].dtype.kind == "f"]
    return min((d for d in (distance(t, value) for t in same) if d < 1e-3), default=0)


def distance(a, b):
    """Largest difference, relative above 1."""
    if a.dtype.kind != "f":
        return 0.0 if (a == b).all() else np.inf
    with np.errstate(invalid="ignore"):
        d = np.abs(a.astype(np.float64) - b) / np.maximum(1, np.abs(b))
    d[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
    return np.inf if np.isnan(d).any() else float(d.max())


def write(path, columns):
    arrays = {k: pa.array([str(s) for s in v]) if v.dtype.kind in "OUS" else pa.array(np.ascontiguousarray(v), from_pandas=False) for k, v in columns.items()}
    pq.write_table(pa.table(arrays), path, compression="zstd", write_statistics=False, use_dictionary=False, store_schema=False)


def main():
    os.makedirs(OUT, exist_ok=True)
    handmade_cases()
    sklearn_cases()
    lightgbm_cases()
    xgboost_cases()
    only = sys.argv[1:]
    manifest, used = [], set()
    previous = {}
    path = os.path.join(OUT, "manifest.json")
    if only and os.path.exists(path):
        previous = {m["name"]: m for m in json.load(open(path))}
    for name, (inputs, build) in CASES.items():
        if only and not any(o in name for o in only):
            if name in previous:
                manifest.append(previous[name])
                used.add(inputs)
            continue
        try:
            model = build()
        except Exception as e:  # an exporter that cannot is not ours to mend: say so and go on
            print(f"{name}: not exported: {type(e).__name__}: {str(e)[-150:]}")
            continue
        if not isinstance(model, bytes):
            del model.metadata_props[:]
            model.graph.name = name  # skl2onnx makes up a new one each time
            model = model.SerializeToString()
        try:
            sess = session(model)
            columns = INPUTS[inputs]
            names = [o.name for o in sess.get_outputs()]
            rows = len(next(iter(columns.values())))
            whole = flat(names, sess.run(None, feeds(sess, columns, slice(None))))
            single = [flat(names, sess.run(None, feeds(sess, columns, slice(i, i + 1)))) for i in range(rows)]
            spread = max(distance(np.concatenate([s[k] for s in single]), whole[k]) for k in whole)
            if name in TRAINED:
                spread = max(spread, *(off(v, whole) for v in answers(*TRAINED[name])), 0)
            if spread > 1e-3:
                print(f"{name}: onnxruntime is off by {spread:.1e}")
                continue
        except Exception as e:
            print(f"{name}: onnxruntime cannot run it: {str(e)[-150:]}")
            continue
        with open(os.path.join(OUT, name + ".onnx"), "wb") as f:
            f.write(model)
        write(os.path.join(OUT, name + ".parquet"), whole)
        used.add(inputs)
        entry = {"name": name, "inputs": inputs}
        if spread > 5e-7:
            entry["tolerance"] = float(f"{4 * spread:.0e}")
        manifest.append(entry)
    for inputs in sorted(used):
        write(os.path.join(OUT, f"inputs_{inputs}.parquet"), INPUTS[inputs])
    with open(path, "w") as f:
        f.write("[\n" + ",\n".join("  " + json.dumps(m) for m in manifest) + "\n]\n")
    size = sum(os.path.getsize(os.path.join(OUT, f)) for f in os.listdir(OUT))
    print(f"{len(manifest)} models, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
