// Holds manifests against Kubernetes' own types: unknown and doubled fields are errors. Reads files, prints kind and name.
package main

import (
	"fmt"
	"os"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func read(document string) (string, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
		return "", err
	}
	types := map[string]metav1.Object{
		"v1/Namespace":                           &corev1.Namespace{},
		"v1/Service":                             &corev1.Service{},
		"v1/ConfigMap":                           &corev1.ConfigMap{},
		"apps/v1/StatefulSet":                    &appsv1.StatefulSet{},
		"apps/v1/Deployment":                     &appsv1.Deployment{},
		"autoscaling/v2/HorizontalPodAutoscaler": &autoscalingv2.HorizontalPodAutoscaler{},
		"policy/v1/PodDisruptionBudget":          &policyv1.PodDisruptionBudget{},
	}
	name := kind.APIVersion + "/" + kind.Kind
	object, known := types[name]
	if !known {
		return "", fmt.Errorf("no such kind here: %s", name)
	}
	if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
		return "", err
	}
	return kind.Kind + " " + object.GetName(), nil
}

func main() {
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for number, document := range strings.Split(string(text), "\n---\n") {
			told, err := read(document)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s, document %d: %v\n", path, number+1, err)
				os.Exit(1)
			}
			fmt.Println(told)
		}
	}
}
